//! The control line: what the same disk does without us, in the same run.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Writes for each size.
const WRITES: u64 = 500;
/// The file that is written into: zeros, on the disk before it begins, as a log's segments are.
const FILE_BYTES: u64 = 8 << 20;
/// But no longer than this for each size.
const SECONDS_MAX: Duration = Duration::from_secs(3);

/// One size's latencies, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Raw {
    /// Bytes of each write.
    pub bytes: u64,
    /// Half of the writes were on the disk after this.
    pub p50_us: f64,
    /// All but one in a hundred were.
    pub p99_us: f64,
}

/// Writes and syncs blocks of 256 bytes and of 4 KiB, one after the other, in a file in `dir`.
///
/// # Errors
/// What the system says.
pub fn measure(dir: &Path) -> io::Result<Vec<Raw>> {
    measure_each(dir, &[256, 4096])
}

/// Writes and syncs blocks of each of these sizes, bytes, one after the other, in a file in `dir`.
///
/// # Errors
/// What the system says.
pub fn measure_each(dir: &Path, sizes: &[u64]) -> io::Result<Vec<Raw>> {
    let path = dir.join("quorate-bench-control");
    let measured = prepare(&path).and_then(|file| sizes.iter().map(|bytes| raw(&file, *bytes)).collect());
    std::fs::remove_file(&path)?;
    measured
}

fn prepare(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    let zeros = vec![0; 1 << 20];
    for offset in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()?;
    Ok(file)
}

fn raw(file: &File, bytes: u64) -> io::Result<Raw> {
    let block = vec![0x5a; usize::try_from(bytes).unwrap_or(4096)];
    let mut latencies = histogram();
    let start = Instant::now();
    for index in 0..WRITES {
        let before = Instant::now();
        file.write_all_at(&block, index.saturating_mul(bytes) % FILE_BYTES)?;
        file.sync_data()?;
        latencies.saturating_record(nanos(before.elapsed()));
        if start.elapsed() > SECONDS_MAX {
            break;
        }
    }
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Raw { bytes, p50_us: at(0.5), p99_us: at(0.99) })
}

/// Latencies of up to an hour, in nanoseconds, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("an hour is more than twice a nanosecond")
}

/// For a histogram.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
