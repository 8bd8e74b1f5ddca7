//! Ranges that are too large for one answer of the cluster: read in pages, all at the revision of the first.
//!
//! Only in the order of keys, in which the next page begins where the last one ended. Whoever sorts by something else is told
//! to ask for less.

use crate::access::Access;
use crate::errors::EtcdError;
use crate::hub::kv_size;
use crate::limits::{PAGE_KEYS_MAX, RANGE_BYTES_MAX};
use crate::proto::etcdserverpb::ResponseHeader;
use crate::store::Read;
use quorate_machines::kv::{KvError, Query, Range, RangeResponse, Response, SortOrder, SortTarget};

/// Whether pages of the range, one after the other, are the range.
pub fn possible(range: &Range) -> bool {
    range.target == SortTarget::Key && range.order != SortOrder::Descend
}

/// Reads all pages.
///
/// # Errors
/// [`KvError::ReplyTooLarge`] beyond [`RANGE_BYTES_MAX`]; [`KvError::Compacted`] if the revision is compacted meanwhile; no
/// answer.
pub async fn read(access: &Access, mut range: Range) -> Result<(ResponseHeader, RangeResponse), EtcdError> {
    let wanted = if range.limit == 0 { u64::MAX } else { range.limit };
    let mut page_keys = PAGE_KEYS_MAX;
    let (mut bytes, mut whole): (usize, Option<(ResponseHeader, RangeResponse)>) = (0, None);
    loop {
        let have = whole.as_ref().map_or(0, |(_, whole)| whole.kvs.len() as u64);
        range.limit = page_keys.min(wanted.saturating_sub(have));
        let (header, page) = match access.query(Read::Linearizable, Query::Range(range.clone())).await {
            Ok((header, Response::Range(page))) => (header, page),
            Ok(_) => return Err(EtcdError::Strange),
            Err(EtcdError::Kv(KvError::ReplyTooLarge)) if page_keys > 1 => {
                page_keys /= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        bytes = page.kvs.iter().fold(bytes, |sum, kv| sum.saturating_add(kv_size(kv)));
        if bytes > RANGE_BYTES_MAX {
            return Err(EtcdError::Kv(KvError::ReplyTooLarge));
        }
        let (first, whole) =
            whole.get_or_insert_with(|| (header, RangeResponse { count: page.count, ..Default::default() }));
        whole.more = page.more;
        whole.kvs.extend(page.kvs);
        match whole.kvs.last().filter(|_| page.more && (whole.kvs.len() as u64) < wanted) {
            Some(last) => {
                let revision = if range.revision > 0 { range.revision } else { first.revision };
                range = range.after(&last.key.clone(), revision);
            }
            None => return Ok((*first, std::mem::take(whole))),
        }
    }
}
