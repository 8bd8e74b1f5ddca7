//! What the operating system knows: the processor time and memory of processes, and what a disk was written.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a group of processes, and the whole machine, had used at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    at: Instant,
    replicas: Duration,
    client: Duration,
    busy: Duration,
    written: Option<u64>,
}

/// What happened between two samples, each as cores: processor seconds per second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// All replicas together.
    pub replicas: f64,
    /// This process.
    pub client: f64,
    /// Everything else on the machine.
    pub foreign: f64,
    /// Bytes that the disk was written, by whomever; nothing if the system does not count them.
    pub written: Option<u64>,
    /// Between the samples.
    pub seconds: f64,
}

impl Sample {
    /// Now, with the disk that holds the folder `disk`.
    pub fn take(replicas: &[u32], disk: &Path) -> Self {
        Self {
            at: Instant::now(),
            replicas: replicas.iter().map(|pid| processor_time(&pid.to_string())).sum(),
            client: processor_time("self"),
            busy: busy(),
            written: written(disk),
        }
    }

    /// From this sample to a later one.
    pub fn until(&self, later: &Self) -> Used {
        let seconds = later.at.duration_since(self.at).as_secs_f64().max(1e-9);
        let cores = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() / seconds;
        let (replicas, client) = (cores(self.replicas, later.replicas), cores(self.client, later.client));
        Used {
            replicas,
            client,
            foreign: (cores(self.busy, later.busy) - replicas - client).max(0.0),
            written: later.written.zip(self.written).map(|(later, earlier)| later.saturating_sub(earlier)),
            seconds,
        }
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs(1).mul_f64(count as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// User and system time of a process; zero if it is gone. proc(5), fields 14 and 15 of `stat`.
pub fn processor_time(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold spaces; field 3 comes after the last parenthesis.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    ticks(fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// Time that all processors were busy: everything in the first line of /proc/stat but idle and waiting for disks.
fn busy() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8).enumerate();
    ticks(fields.filter(|(index, _)| !matches!(index, 3 | 4)).filter_map(|(_, it)| it.parse::<u64>().ok()).sum())
}

/// Bytes that the disk below a folder was written since the machine started. `write_bytes` of /proc/PID/io would know whose
/// they are, but it counts whole folios of the page cache, of up to a megabyte, for each record of a few hundred bytes.
fn written(folder: &Path) -> Option<u64> {
    const SECTOR: u64 = 512; // in this file, whatever the disk's own is
    let disk = fs::metadata(folder).ok()?.dev();
    let number = [rustix::fs::major(disk), rustix::fs::minor(disk)].map(|it| it.to_string());
    let statistics = fs::read_to_string("/proc/diskstats").ok()?;
    let mut lines = statistics.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.iter().take(2).eq(&number))?;
    fields.get(9)?.parse::<u64>().ok()?.checked_mul(SECTOR)
}

/// Memory that a process occupies, bytes. proc(5), field 2 of `statm`.
pub fn resident(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
    pages.saturating_mul(rustix::param::page_size() as u64)
}
