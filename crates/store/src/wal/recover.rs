//! From a scan to a log that can be appended to: judge, repair, report.
//!
//! With D the highest sequence number that some record or seal says is safe, damage at or below D is corruption: it is
//! reported and left as it is. Everything above D belongs to the last group, of which the caller was possibly never told
//! that it is safe. If any damage in it is torn, the sync never returned, so the group is cut where the damage starts and
//! the bytes are set to zero again. If none is, it is corruption of a group that may have been safe: nothing is cut, the
//! numbers that may have been used are given up, and a *gap* record at the start of a new segment remembers that. A record
//! of which nothing is lost is cut only if its own damage is torn.

use super::frame::{Chain, Header, Kind, SEQ_END, Seed, put};
use super::report::{DamagedTail, Item, Recovered, Report, Torn};
use super::scan::{Event, HurtHeader, Lost, Record, Scanner, SegmentScan};
use super::segment::{self, FOLDER, HeaderRead, RECORDS, SegmentHeader};
use super::{Class, WalConfig, WalError};
use crate::disk::{Disk, DiskFile};
use quorate_core::mutated;

/// More than any segment has, in bytes; a longer file of unknown origin is not read beyond it.
const UNKNOWN_SEGMENT_MAX: u64 = 1 << 30;

/// A log as it was found, nothing changed yet.
pub(crate) struct Examined {
    pub(crate) log_id: u128,
    pub(crate) segments: Vec<(SegmentScan, HeaderRead)>,
    pub(crate) events: Vec<Event>,
    pub(crate) cut: Option<Cut>,
    pub(crate) tail: Option<Lost>,
    pub(crate) next_seq: u64,
    pub(crate) chain: Chain,
    hurt: Vec<HurtHeader>,
    /// Records from this number on may be in the system's memory only.
    synced_below: u64,
    stray: Vec<String>,
}

/// Where a torn group is removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) segment: u64,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) seq: u64,
}

/// The numbers of the segments in the folder, in order.
pub(crate) fn numbers(disk: &impl Disk) -> Result<Vec<u64>, WalError> {
    Ok(disk.list(FOLDER)?.iter().filter_map(|file| segment::number_of(file)).collect())
}

/// Reads the whole log. `log_id` is taken from the first readable header if it is not given; `size` is the size assumed
/// for a segment that cannot say its own. `None` if there is no segment.
pub(crate) fn examine(disk: &impl Disk, log_id: Option<u128>, size: u64) -> Result<Option<Examined>, WalError> {
    let numbers = numbers(disk)?;
    let Some(&first) = numbers.first() else { return Ok(None) };
    let log_id = match log_id {
        Some(log_id) => log_id,
        None => find_log_id(disk, &numbers)?,
    };
    let mut scanner = Scanner::new(log_id, (first == 1).then(|| Chain::start(log_id)));
    let mut segments = Vec::with_capacity(numbers.len());
    let mut floor_max = 1;
    for number in numbers {
        let file = disk.open_to_read(&segment::name(number))?;
        let len = file.len()?;
        let read = segment::read_header(&file.read_at(0, RECORDS)?);
        segment::check_identity(number, log_id, &read)?;
        let (size, floor) = match read {
            HeaderRead::Both(header) | HeaderRead::One(header, _) => (header.size, header.floor),
            _ if len <= RECORDS as u64 => (size, 1),
            _ => (len.min(UNKNOWN_SEGMENT_MAX), 1),
        };
        let bytes = file.read_at(0, usize::try_from(size.min(len)).unwrap_or(usize::MAX))?;
        floor_max = floor_max.max(floor);
        segments.push((scanner.segment(number, &bytes, size, floor), read));
    }
    Ok(Some(judge(scanner, segments, log_id, floor_max)))
}

fn find_log_id(disk: &impl Disk, numbers: &[u64]) -> Result<u128, WalError> {
    for &number in numbers {
        match segment::read_header(&disk.open_to_read(&segment::name(number))?.read_at(0, RECORDS)?) {
            HeaderRead::Both(header) | HeaderRead::One(header, _) => return Ok(header.log_id),
            HeaderRead::Version(version) => {
                return Err(WalError::Version { file: segment::name(number), version });
            }
            HeaderRead::Neither => {}
        }
    }
    Err(WalError::NoHeader)
}

/// Tells a torn group from corruption.
fn judge(scanner: Scanner, segments: Vec<(SegmentScan, HeaderRead)>, log_id: u128, floor_max: u64) -> Examined {
    let next_seq = scanner.next_seq().max(floor_max);
    let chain = scanner.chain().unwrap_or_else(|| Chain::start(log_id));
    let stray = scanner.stray.iter().map(|place| {
        format!(
            "{} bytes at {} of {} are no record",
            place.end.saturating_sub(place.start),
            place.start,
            segment::name(place.segment)
        )
    });
    let stray = stray.collect();
    let Scanner { mut events, mut tail, synced_below, hurt, .. } = scanner;
    let synced_below = if mutated!("recover/damage-is-a-torn-write") { 0 } else { synced_below };
    let in_flight = |event: &Event| match event {
        Event::Record(record) => {
            let lost = record.body.is_none() || (record.healed && record.torn);
            lost && record.header.seq >= synced_below
        }
        Event::Lost(lost) => lost.first >= synced_below,
    };
    let torn = |event: &Event| match event {
        Event::Record(record) => record.torn || mutated!("recover/damage-is-a-torn-write"),
        Event::Lost(lost) => lost.torn || mutated!("recover/damage-is-a-torn-write"),
    };
    let tail_torn = tail.is_some_and(|tail| tail.first >= synced_below && tail.torn);
    if !tail_torn && !events.iter().any(|event| in_flight(event) && torn(event)) {
        return Examined { log_id, segments, events, cut: None, tail, next_seq, chain, hurt, synced_below, stray };
    }
    let at = events.iter().position(in_flight).unwrap_or(events.len());
    let dropped = events.split_off(at);
    let (place, seq, chain) = match (dropped.first(), tail.take()) {
        (Some(Event::Record(record)), _) => (record.place, record.header.seq, record.header.before),
        (Some(Event::Lost(lost)), _) => (lost.place, lost.first, lost.chain.unwrap_or_else(|| Chain::start(log_id))),
        (None, Some(lost)) => (lost.place, lost.first, lost.chain.unwrap_or_else(|| Chain::start(log_id))),
        (None, None) => {
            return Examined { log_id, segments, events, cut: None, tail, next_seq, chain, hurt, synced_below, stray };
        }
    };
    let end =
        segments.iter().find(|(scan, _)| scan.number == place.segment).map_or(place.end, |(scan, _)| scan.content_end);
    let cut = Some(Cut { segment: place.segment, start: place.start, end: end.max(place.start), seq });
    Examined { log_id, segments, events, cut, tail, next_seq: seq, chain, hurt, synced_below, stray }
}

impl Examined {
    /// What to tell the caller, the bodies moved out.
    pub(crate) fn report(&mut self) -> Recovered {
        let mut report = Report { segments: self.segments.len(), next_seq: self.next_seq, ..Report::default() };
        report.bytes = self.segments.iter().map(|(scan, _)| scan.len).fold(0, u64::saturating_add);
        report.notes = std::mem::take(&mut self.stray);
        for (scan, read) in &self.segments {
            let name = segment::name(scan.number);
            match read {
                HeaderRead::One(_, copy) => {
                    report.notes.push(format!("copy {copy} of the header of {name} was damaged"))
                }
                HeaderRead::Neither => report.notes.push(format!("the header of {name} was damaged")),
                HeaderRead::Both(_) | HeaderRead::Version(_) => {}
            }
            if scan.short {
                report.notes.push(format!("{name} is cut short: {} bytes are left", scan.len));
            }
            if let Some(flipped) = scan.flipped {
                report.notes.push(format!("a bit of byte {flipped} of {name} was flipped, where no record is"));
            }
        }
        for HurtHeader { segment, at, .. } in self.hurt.iter().filter(|hurt| !matches!(hurt.header.kind, Kind::User(_)))
        {
            let name = segment::name(*segment);
            report.notes.push(format!("one of the two heads of the mark at {at} of {name} was damaged"));
        }
        let mut items = Vec::with_capacity(self.events.len());
        for event in &mut self.events {
            match event {
                Event::Lost(lost) => items.extend(lost.items()),
                Event::Record(record) => {
                    let (seq, class) = (record.header.seq, record.class);
                    report.healed.extend(record.healed.then_some(seq));
                    items.push(match &mut record.body {
                        Some(body) => Item::Found { seq, class, body: std::mem::take(body) },
                        None => Item::Damaged { first: seq, last: seq, class: Some(class) },
                    });
                }
            }
        }
        if let Some(cut) = self.cut {
            report.torn = Some(Torn { seq: cut.seq, bytes: cut.end.saturating_sub(cut.start) as u64 });
        }
        if let Some(tail) = self.tail {
            let at_most = tail.last.saturating_sub(tail.first).saturating_add(1);
            report.tail = Some(DamagedTail { from_seq: tail.first, at_most });
            items.extend(tail.items());
            report.next_seq = tail.last.saturating_add(1);
        }
        report.count(&items);
        Recovered { items, report }
    }

    /// The segment that the log goes on in, if nothing needs a new one: the last with content, or the first.
    pub(crate) fn last_used(&self) -> Option<&SegmentScan> {
        let used = self.segments.iter().rev().map(|(scan, _)| scan).find(|scan| !scan.is_blank());
        used.or_else(|| self.segments.first().map(|(scan, _)| scan))
    }

    /// Writes damaged heads and copies of promises again, takes back a flipped bit and removes a torn group. Everything the log holds is safe
    /// afterwards: what was read may have been in the system's memory only, if a process died before a sync.
    pub(crate) fn repair(&self, disk: &impl Disk) -> Result<(), WalError> {
        for (scan, read) in &self.segments {
            let file = disk.open(&segment::name(scan.number))?;
            let header = SegmentHeader {
                log_id: self.log_id,
                number: scan.number,
                floor: scan.seqs.map_or(1, |(first, _)| first),
                size: scan.len,
            };
            let rewritten: &[(usize, SegmentHeader)] = match read {
                HeaderRead::One(header, copy) => &[(*copy, *header)],
                HeaderRead::Neither if scan.len > RECORDS as u64 => &[(0, header), (1, header)],
                _ => &[],
            };
            for (copy, header) in rewritten.iter().filter(|_| scan.len > RECORDS as u64) {
                segment::write_header(&file, header, *copy)?;
                file.sync_data()?; // One at a time: a power loss never takes both copies.
            }
            self.heal(&file, scan)?;
            if !mutated!("recover/what-may-be-unsafe-is-not-rewritten") {
                self.rewrite_unsafe(&file, scan)?;
            }
            if let Some(cut) = self.cut.filter(|cut| cut.segment == scan.number) {
                let zeros = vec![0; cut.end.saturating_sub(cut.start)];
                if !mutated!("recover/torn-write-stays") {
                    file.write_at(cut.start as u64, &zeros)?;
                }
            }
            if !mutated!("recover/what-is-found-is-not-synced") {
                file.sync_data()?;
            }
        }
        Ok(())
    }

    fn heal(&self, file: &impl DiskFile, scan: &SegmentScan) -> Result<(), WalError> {
        let seed = Seed::new(self.log_id, scan.number);
        for HurtHeader { at, header, .. } in self.hurt.iter().filter(|hurt| hurt.segment == scan.number) {
            let removed = self.cut.is_some_and(|cut| cut.segment == scan.number && cut.start <= *at && *at < cut.end);
            if !removed {
                file.write_at(*at as u64, &header.encode(seed, *at))?;
            }
        }
        for event in &self.events {
            let Event::Record(Record { header, body: Some(body), hurt, place, .. }) = event else { continue };
            let second = place.start.saturating_add(header.span());
            let whole = place.end == second.saturating_add(header.span()) && place.end as u64 <= scan.len;
            if place.segment != scan.number || !whole {
                continue;
            }
            for (copy, start) in (0..).zip([place.start, second]).zip(hurt).filter_map(|(it, hurt)| hurt.then_some(it))
            {
                let of = Header::of(header.kind, header.seq, header.synced_below, header.before, body, start);
                let mut bytes = Vec::with_capacity(header.span());
                put(&mut bytes, &Header { copy, ..of }, body, seed, start);
                file.write_at(start as u64, &bytes)?;
            }
        }
        if let Some(flipped) = scan.flipped {
            file.write_at(flipped as u64, &[0])?;
        }
        Ok(())
    }

    /// Writes what no record or seal says is safe once more, as it was read: if its sync failed, the system holds it in
    /// memory, believes it clean and would not write it at the next sync (Rebello et al., ATC 2020).
    fn rewrite_unsafe(&self, file: &impl DiskFile, scan: &SegmentScan) -> Result<(), WalError> {
        let places = self.events.iter().filter_map(|event| match event {
            Event::Record(record) if record.header.seq >= self.synced_below => Some(record.place),
            _ => None,
        });
        for place in places.filter(|place| place.segment == scan.number) {
            let bytes = file.read_at(place.start as u64, place.end.saturating_sub(place.start))?;
            file.write_at(place.start as u64, &bytes)?;
        }
        Ok(())
    }

    /// A segment after all others that starts with a gap over the damaged tail, if there is one.
    pub(crate) fn new_segment<D: Disk>(&self, disk: &D, config: &WalConfig, number: u64) -> Result<Fresh<D>, WalError> {
        let floor = self.tail.map_or(self.next_seq, |tail| tail.first);
        let previous = self.segments.iter().map(|(scan, _)| scan.len).max().unwrap_or(0);
        let size = segment::next_size(config, previous.checked_div(2).unwrap_or(0), 0);
        let header = SegmentHeader { log_id: self.log_id, number, floor, size };
        let file = segment::create(disk, &header, |_| true)?;
        let mut fresh = Fresh::<D> { file, size, append_at: RECORDS, next_seq: self.next_seq, chain: self.chain };
        if let Some(tail) = self.tail.filter(|tail| tail.last < SEQ_END) {
            let classes = tail.said.unwrap_or_else(|| self.chain.without_classes());
            let before = Chain { link: self.chain.link, ..classes };
            let gap = Header::of(Kind::Gap, tail.last, tail.first, before, &[], RECORDS);
            let mut bytes = Vec::with_capacity(gap.span());
            put(&mut bytes, &gap, &[], Seed::new(self.log_id, number), RECORDS);
            fresh.file.write_at(RECORDS as u64, &bytes)?;
            fresh.file.sync_data()?;
            fresh.append_at = RECORDS.saturating_add(gap.span());
            fresh.next_seq = tail.last.saturating_add(1);
            fresh.chain = gap.after();
        }
        Ok(fresh)
    }
}

/// A segment made to go on after damage.
pub(crate) struct Fresh<D: Disk> {
    pub(crate) file: D::File,
    pub(crate) size: u64,
    pub(crate) append_at: usize,
    pub(crate) next_seq: u64,
    pub(crate) chain: Chain,
}

impl Lost {
    /// What to tell the caller: one item for each stretch of which the same is known.
    fn items(&self) -> impl Iterator<Item = Item> {
        let ranges = match self.said {
            Some(said) => said.classes(self.first, self.last),
            None => vec![(self.first, self.last, None)],
        };
        ranges.into_iter().map(|(first, last, class)| Item::Damaged { first, last, class })
    }
}

impl From<Class> for Kind {
    fn from(class: Class) -> Self {
        Self::User(class)
    }
}
