//! Quantities as Kubernetes writes them (`1Gi`, `0.5`, `500m`). Pure; nothing overflows whatever is written.

/// Whole bytes of a size, rounded down.
pub fn bytes(text: &str) -> Option<u64> {
    u64::try_from(decimal(text, 1)?).ok()
}

/// Thousandths of a quantity, rounded down: what processor time is counted in.
pub fn thousandths(text: &str) -> Option<u128> {
    match text.strip_suffix('m') {
        Some(number) => whole(number.split_once('.').map_or(number, |(units, _)| units)).map(u128::from),
        None => decimal(text, 1000),
    }
}

/// So many times a number with a suffix, rounded down.
fn decimal(text: &str, times: u128) -> Option<u128> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (units, fraction) = number.split_once('.').unwrap_or((number, ""));
    let factor = u128::from(factor(suffix)?).checked_mul(times)?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits = u128::from(whole(units)?).checked_mul(scale)?.checked_add(match fraction {
        "" => 0,
        fraction => u128::from(whole(fraction)?),
    })?;
    Some(digits.checked_mul(factor)? / scale)
}

fn factor(suffix: &str) -> Option<u64> {
    let table = [
        ("", 1),
        ("k", 1000),
        ("M", 1000_u64.pow(2)),
        ("G", 1000_u64.pow(3)),
        ("T", 1000_u64.pow(4)),
        ("Ki", 1024),
        ("Mi", 1024_u64.pow(2)),
        ("Gi", 1024_u64.pow(3)),
        ("Ti", 1024_u64.pow(4)),
    ];
    table.into_iter().find(|(name, _)| *name == suffix).map(|(_, factor)| factor)
}

/// A number of digits alone: `u64::from_str` would take a sign.
pub fn whole(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_compared_in_thousandths() {
        for (text, expected) in [
            ("500m", Some(500)),
            ("0.5", Some(500)),
            ("2", Some(2000)),
            ("1.5m", Some(1)),
            ("32Mi", Some(33_554_432_000)),
            ("m", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(thousandths(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_whole_bytes() {
        for (text, expected) in [
            ("1Gi", Some(1 << 30)),
            ("1.5Ki", Some(1536)),
            ("1M", Some(1_000_000)),
            ("1073741824", Some(1 << 30)),
            ("0.0001k", Some(0)),
            ("500m", None),
            ("1Ei", None),
            ("-1Gi", None),
            ("", None),
            ("Gi", None),
            ("1Gib", None),
            ("99999999999T", None),
            ("1.00000000000000000000000000000000000000000000Gi", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
