//! Frames are cut out of the bytes that arrive, however these are sliced, and out of nothing else.

use bytes::{Bytes, BytesMut};
use quorate_core::ids::Epoch;
use quorate_runtime::link::frame::{FrameBuffer, HEADER_BYTES, Kind, Malformed, header};

const BODY_BYTES_MAX: usize = 20 << 20;

fn push(buffer: &mut FrameBuffer, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let room = buffer.room();
        let count = bytes.len().min(room.capacity() - room.len());
        assert!(count > 0, "there is always room to read into");
        room.extend_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
    }
}

fn encoded(bodies: &[Bytes]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for body in bodies {
        bytes.extend_from_slice(&header(Kind::Message, Epoch::new(7), body.len()));
        bytes.extend_from_slice(body);
    }
    bytes
}

/// A generator of test numbers (Knuth's MMIX constants): the same in each run.
fn dice(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

#[test]
fn a_header_is_these_bytes() {
    let bytes = header(Kind::Message, Epoch::new(0x0403_0201), 0x1234);
    assert_eq!(bytes, [0x34, 0x12, 0, 0, 3, 1, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0]);
}

#[test]
fn any_slicing_of_the_bytes_gives_the_same_frames() {
    let mut state = 1;
    for _ in 0..200 {
        let bodies: Vec<Bytes> = (0..20).map(|n| Bytes::from(vec![n; dice(&mut state) % 3000])).collect();
        let bytes = encoded(&bodies);
        let mut buffer = FrameBuffer::new(3000);
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + dice(&mut state) % 5000).min(rest.len()));
            push(&mut buffer, now);
            while let Some(frame) = buffer.next_frame().expect("well formed") {
                assert_eq!((frame.kind, frame.epoch), (Kind::Message, 7));
                found.push(frame.body);
            }
            rest = later;
        }
        assert_eq!(found, bodies);
        assert_eq!(buffer.pending(), 0);
    }
}

#[test]
fn bodies_are_views_of_the_read_buffer() {
    let mut buffer = FrameBuffer::new(BODY_BYTES_MAX);
    push(&mut buffer, &encoded(&[Bytes::from_static(b"first"), Bytes::from_static(b"second")]));
    let first = buffer.next_frame().expect("well formed").expect("complete").body;
    let second = buffer.next_frame().expect("well formed").expect("complete").body;
    assert_eq!(second.as_ptr() as usize - first.as_ptr() as usize, first.len() + HEADER_BYTES);
}

#[test]
fn an_announced_length_reserves_nothing() {
    let mut buffer = FrameBuffer::new(BODY_BYTES_MAX);
    push(&mut buffer, &header(Kind::Message, Epoch::ZERO, BODY_BYTES_MAX));
    assert_eq!(buffer.next_frame(), Ok(None));
    assert!(buffer.room().capacity() <= 64 * 1024);
    let mut arrived = HEADER_BYTES;
    while arrived < HEADER_BYTES + BODY_BYTES_MAX {
        let chunk = [0; 16 * 1024];
        let count = chunk.len().min(HEADER_BYTES + BODY_BYTES_MAX - arrived);
        push(&mut buffer, &chunk[..count]);
        arrived += count;
        let complete = buffer.next_frame().expect("well formed").is_some();
        assert_eq!(complete, arrived == HEADER_BYTES + BODY_BYTES_MAX);
        assert!(buffer.room().capacity() <= 2 * arrived + 128 * 1024, "memory follows what has arrived");
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_the_body_comes() {
    let mut buffer = FrameBuffer::new(1000);
    push(&mut buffer, &header(Kind::Message, Epoch::ZERO, 1001));
    assert_eq!(buffer.next_frame(), Err(Malformed::TooLong { length: 1001, max: 1000 }));
    let mut buffer = FrameBuffer::new(1000);
    push(&mut buffer, &header(Kind::Message, Epoch::ZERO, 1000));
    assert_eq!(buffer.next_frame(), Ok(None));
}

#[test]
fn no_bytes_make_it_panic() {
    let mut state = 2;
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..dice(&mut state) % 100).map(|_| dice(&mut state) as u8).collect();
        if let Some(version) = bytes.get_mut(5)
            && dice(&mut state).is_multiple_of(2)
        {
            *version = 1; // get further than the first check in half of the cases
        }
        if let Some(reserved) = bytes.get_mut(6..8) {
            reserved.fill(0);
        }
        if let Some(length) = bytes.get_mut(1..4) {
            length.fill(0);
        }
        let mut buffer = FrameBuffer::new(64);
        push(&mut buffer, &bytes);
        while let Ok(Some(_)) = buffer.next_frame() {}
    }
}
