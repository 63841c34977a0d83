//! Times and sizes for people. Pure: now is passed in.

use jiff::Timestamp;

/// From one time to another, in the largest unit that still says something.
pub fn span(from: Timestamp, to: Timestamp) -> String {
    seconds(to.duration_since(from).as_secs())
}

/// A length of time. A negative one, of two clocks that differ, is none.
pub fn seconds(seconds: i64) -> String {
    match seconds {
        ..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time to the second.
pub fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// A number of octets.
pub fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = KIB * KIB;
    let tenths = |unit: u64| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        ..KIB => format!("{bytes} B"),
        KIB..MIB => format!("{} KiB", tenths(KIB)),
        _ => format!("{} MiB", tenths(MIB)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_have_few_digits() {
        assert_eq!(
            [-5, 0, 119, 120, 7199, 7200, 172_800].map(seconds),
            ["0s", "0s", "119s", "2m", "119m", "2h", "2d"]
        );
        assert_eq!([0, 1023, 1024, 36_700_160].map(size), ["0 B", "1023 B", "1.0 KiB", "35.0 MiB"]);
    }
}
