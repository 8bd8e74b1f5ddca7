//! Writes a bbolt database: the file format of etcd's backend. Only what a new, compact database needs: sorted keys go in, and
//! pages come out in the order in which they are full; nothing is ever changed.
//!
//! ```text
//! file     page 0: meta | page 1: meta | page 2: the list of free pages, empty | pages of trees | the root's leaf
//! page     id u64 | kind u16 | count u16 | further pages u32 | elements | their bytes
//! meta     magic u32 | version u32 | page bytes u32 | 0 u32 | root page u64 | 0 u64 | free list's page u64 |
//!          pages in use u64 | transaction u64 | FNV-1a of all before u64
//! leaf     element: kind u32 (1: a bucket) | distance to its bytes u32 | key bytes u32 | value bytes u32
//! branch   element: distance to its bytes u32 | key bytes u32 | child's page u64
//! bucket   a leaf's value: root page u64 | 0 u64
//! ```
//! Integers are little-endian. Source: bbolt's `page.go`, `db.go`, `bucket.go`.

use std::io::{self, Seek, SeekFrom, Write};

/// What bbolt uses on nearly every machine; the file says it.
const PAGE_BYTES: usize = 4096;
const PAGE_HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;
const MAGIC: u32 = 0xED0C_DAED;
const FORMAT_VERSION: u32 = 2;
/// Two metas and the list of free pages.
const FIRST_PAGE: u64 = 3;
const FREE_LIST_PAGE: u64 = 2;

/// Kinds of pages.
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREE_LIST: u16 = 0x10;

/// The kind of a leaf's element that is a bucket.
const BUCKET: u32 = 1;

/// A database that is being written.
#[derive(Debug)]
pub struct Database<F: Write + Seek> {
    file: F,
    next_page: u64,
    /// Names and root pages.
    buckets: Vec<(&'static str, u64)>,
}

impl<F: Write + Seek> Database<F> {
    /// An empty one, at the beginning of an empty file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn create(mut file: F) -> io::Result<Self> {
        for _ in 0..FIRST_PAGE {
            file.write_all(&[0; PAGE_BYTES])?; // written again at the end, when it is known what they say
        }
        Ok(Self { file, next_page: FIRST_PAGE, buckets: Vec::new() })
    }

    /// Begins a bucket. Buckets are written one after the other.
    pub fn bucket(&mut self, name: &'static str) -> Bucket<'_, F> {
        Bucket { database: self, name, levels: vec![Page::new(LEAF)] }
    }

    /// Writes what leads to the buckets; the file is then whole.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(mut self) -> io::Result<F> {
        self.buckets.sort_unstable();
        let mut root = Page::new(LEAF);
        for (name, page) in std::mem::take(&mut self.buckets) {
            root.add(Element { kind: BUCKET, child: 0, key: name.into(), value: bucket_value(page) });
        }
        let root = self.write_page(&root)?;
        self.file.seek(SeekFrom::Start(0))?;
        for transaction in 0..2 {
            let meta = meta(root, self.next_page, transaction);
            self.file.write_all(&padded(&page_bytes(transaction, META, 0, 0, &meta)))?;
        }
        self.file.write_all(&padded(&page_bytes(FREE_LIST_PAGE, FREE_LIST, 0, 0, &[])))?;
        self.file.flush()?;
        Ok(self.file)
    }

    /// Writes a page, and as many as its bytes need beyond it. Its id.
    fn write_page(&mut self, page: &Page) -> io::Result<u64> {
        let id = self.next_page;
        let bytes = page.encode(id);
        self.file.write_all(&bytes)?;
        self.next_page = id.saturating_add((bytes.len() / PAGE_BYTES) as u64);
        Ok(id)
    }
}

/// A bucket that is being written: a tree whose right edge is in memory, the leaf first.
#[derive(Debug)]
pub struct Bucket<'a, F: Write + Seek> {
    database: &'a mut Database<F>,
    name: &'static str,
    levels: Vec<Page>,
}

impl<F: Write + Seek> Bucket<'_, F> {
    /// Adds a key, which must be greater than those before it.
    ///
    /// # Errors
    /// Those of the file.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.add(0, Element { kind: 0, child: 0, key: key.to_vec(), value: value.to_vec() })
    }

    /// Adds an element to a level's page; a page that is full is written, and the level above learns of it.
    fn add(&mut self, level: usize, element: Element) -> io::Result<()> {
        if self.levels.len() <= level {
            self.levels.push(Page::new(BRANCH));
        }
        let Some(page) = self.levels.get_mut(level) else { return Ok(()) };
        if page.has_room_for(&element) {
            page.add(element);
            return Ok(());
        }
        let mut following = Page::new(page.kind);
        following.add(element);
        let full = std::mem::replace(page, following);
        self.write(level, full)
    }

    fn write(&mut self, level: usize, page: Page) -> io::Result<()> {
        let child = self.database.write_page(&page)?;
        let key = page.elements.into_iter().next().map(|first| first.key).unwrap_or_default();
        self.add(level.saturating_add(1), Element { kind: 0, child, key, value: Vec::new() })
    }

    /// Writes the right edge; the topmost page is the root.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(mut self) -> io::Result<()> {
        let mut level = 0_usize;
        loop {
            let topmost = level.saturating_add(1) >= self.levels.len();
            let Some(page) = self.levels.get_mut(level) else { return Ok(()) };
            let page = std::mem::replace(page, Page::new(BRANCH));
            if topmost {
                let root = self.database.write_page(&page)?;
                self.database.buckets.push((self.name, root));
                return Ok(());
            }
            self.write(level, page)?;
            level = level.saturating_add(1);
        }
    }
}

#[derive(Debug)]
struct Element {
    kind: u32,
    child: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Element {
    fn bytes(&self) -> usize {
        ELEMENT_BYTES.saturating_add(self.key.len()).saturating_add(self.value.len())
    }
}

/// A page that is being filled.
#[derive(Debug)]
struct Page {
    kind: u16,
    elements: Vec<Element>,
    bytes: usize,
}

impl Page {
    fn new(kind: u16) -> Self {
        Self { kind, elements: Vec::new(), bytes: PAGE_HEADER_BYTES }
    }

    /// A page holds one element, however long, or as many as fit.
    fn has_room_for(&self, element: &Element) -> bool {
        self.elements.is_empty() || self.bytes.saturating_add(element.bytes()) <= PAGE_BYTES
    }

    fn add(&mut self, element: Element) {
        self.bytes = self.bytes.saturating_add(element.bytes());
        self.elements.push(element);
    }

    /// Whole pages.
    fn encode(&self, id: u64) -> Vec<u8> {
        let (mut heads, mut contents) = (Vec::new(), Vec::new());
        for (index, element) in self.elements.iter().enumerate() {
            let heads_after = self.elements.len().saturating_sub(index).saturating_mul(ELEMENT_BYTES);
            let distance = length(heads_after.saturating_add(contents.len()));
            let (key_bytes, value_bytes) = (length(element.key.len()), length(element.value.len()));
            if self.kind == BRANCH {
                heads.extend([distance.to_le_bytes(), key_bytes.to_le_bytes()].concat());
                heads.extend(element.child.to_le_bytes());
            } else {
                heads.extend([element.kind, distance, key_bytes, value_bytes].map(u32::to_le_bytes).concat());
            }
            contents.extend_from_slice(&element.key);
            contents.extend_from_slice(&element.value);
        }
        heads.append(&mut contents);
        let further = PAGE_HEADER_BYTES.saturating_add(heads.len()).div_ceil(PAGE_BYTES).saturating_sub(1);
        let count = u16::try_from(self.elements.len()).unwrap_or(u16::MAX); // a page has room for 255
        padded(&page_bytes(id, self.kind, count, length(further), &heads))
    }
}

/// Lengths within a page, of which one element is a few MiB at most.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn page_bytes(id: u64, kind: u16, count: u16, further: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend([kind.to_le_bytes(), count.to_le_bytes()].concat());
    bytes.extend(further.to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
    padded
}

fn bucket_value(root: u64) -> Vec<u8> {
    [root.to_le_bytes(), [0; 8]].concat()
}

fn meta(root: u64, pages: u64, transaction: u64) -> Vec<u8> {
    let page_bytes = length(PAGE_BYTES);
    let mut bytes = [MAGIC, FORMAT_VERSION, page_bytes, 0].map(u32::to_le_bytes).concat();
    bytes.extend([root, 0, FREE_LIST_PAGE, pages, transaction].map(u64::to_le_bytes).concat());
    let checksum = fnv_1a(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        bytes[at..at + N].try_into().expect("it is there")
    }

    /// All keys and values under a page, as bbolt would walk there; and the ids of all pages.
    fn walk(file: &[u8], page: u64, found: &mut Vec<(Vec<u8>, Vec<u8>)>, pages: &mut Vec<u64>) {
        let start = usize::try_from(page).expect("small") * PAGE_BYTES;
        assert_eq!(u64::from_le_bytes(number(file, start)), page);
        let (kind, count) = (u16::from_le_bytes(number(file, start + 8)), u16::from_le_bytes(number(file, start + 10)));
        let further = u64::from(u32::from_le_bytes(number(file, start + 12)));
        pages.extend(page..=page + further);
        for element in 0..usize::from(count) {
            let at = start + PAGE_HEADER_BYTES + element * ELEMENT_BYTES;
            let word = |index: usize| u32::from_le_bytes(number(file, at + 4 * index)) as usize;
            match kind {
                BRANCH => {
                    let before = found.len();
                    walk(file, u64::from_le_bytes(number(file, at + 8)), found, pages);
                    assert_eq!(found[before].0, &file[at + word(0)..][..word(1)], "a child's first key");
                }
                LEAF => {
                    let (key, value) = file[at + word(1)..][..word(2) + word(3)].split_at(word(2));
                    found.push((key.to_vec(), value.to_vec()));
                }
                other => panic!("a page of kind {other}"),
            }
        }
    }

    type Bucket = (&'static str, Vec<(Vec<u8>, Vec<u8>)>);

    fn written(buckets: &[Bucket]) -> Vec<u8> {
        let mut database = Database::create(Cursor::new(Vec::new())).expect("memory");
        for (name, content) in buckets {
            let mut bucket = database.bucket(name);
            for (key, value) in content {
                bucket.put(key, value).expect("memory");
            }
            bucket.finish().expect("memory");
        }
        database.finish().expect("memory").into_inner()
    }

    #[test]
    fn what_is_put_in_is_found_by_walking_the_tree_and_every_page_is_in_use_once() {
        let many = (0..20_000_u32).map(|n| (n.to_be_bytes().to_vec(), vec![7; (n % 300) as usize])).collect();
        let large =
            vec![(b"a".to_vec(), vec![1; 3 * PAGE_BYTES]), (b"b".to_vec(), vec![2; 5]), (b"c".to_vec(), vec![])];
        let buckets = [("many", many), ("empty", vec![]), ("large", large)];
        let file = written(&buckets);
        assert_eq!(file.len() % PAGE_BYTES, 0);
        let root = u64::from_le_bytes(number(&file, PAGE_HEADER_BYTES + 16));
        let pages = u64::from_le_bytes(number(&file, PAGE_HEADER_BYTES + 40));
        assert_eq!(pages as usize * PAGE_BYTES, file.len());
        let (mut names, mut in_use) = (Vec::new(), vec![0, 1, 2]);
        walk(&file, root, &mut names, &mut in_use);
        assert_eq!(
            names.iter().map(|(name, _)| name.as_slice()).collect::<Vec<_>>(),
            [&b"empty"[..], b"large", b"many"]
        );
        for (name, value) in names {
            let mut found = Vec::new();
            walk(&file, u64::from_le_bytes(number(&value, 0)), &mut found, &mut in_use);
            let expected = &buckets.iter().find(|(it, _)| it.as_bytes() == name).expect("a bucket").1;
            assert!(found == *expected, "{}", String::from_utf8_lossy(&name));
        }
        in_use.sort_unstable();
        assert_eq!(in_use, (0..pages).collect::<Vec<_>>());
    }

    #[test]
    fn the_metas_are_checked_and_differ_in_their_transaction_only() {
        let file = written(&[]);
        for transaction in 0..2_u64 {
            let meta = &file[transaction as usize * PAGE_BYTES + PAGE_HEADER_BYTES..][..64];
            assert_eq!(u32::from_le_bytes(number(meta, 0)), MAGIC);
            assert_eq!(u64::from_le_bytes(number(meta, 48)), transaction);
            assert_eq!(u64::from_le_bytes(number(meta, 56)), fnv_1a(&meta[..56]));
        }
        assert_eq!(fnv_1a(b"a"), 0xaf63_dc4c_8601_ec8c, "the published example");
    }
}
