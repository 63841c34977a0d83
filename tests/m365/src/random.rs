//! Randomness, at the edge: identifiers that look like Microsoft's. The pure parts get them passed in.

use ring::rand::{SecureRandom, SystemRandom};

/// `N` random bytes.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has a source of random bytes");
    bytes
}

/// `2 * N` lower-case hexadecimal digits.
#[must_use]
pub fn hex<const N: usize>() -> String {
    bytes::<N>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A random GUID (version 4).
#[must_use]
pub fn guid() -> String {
    let mut raw = bytes::<16>();
    raw[6] = raw[6] & 0x0f | 0x40;
    raw[8] = raw[8] & 0x3f | 0x80;
    let digits: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// A front-end host name of the shape that Exchange Online shows, such as `FR0P281CA0064`.
#[must_use]
pub fn front_end() -> String {
    let [a, b, c] = bytes::<3>();
    format!("FR{}P{}CA{:04}", a % 4, 100 + u16::from(b) % 300, u16::from(c))
}

/// An edge host name of the shape that the MX endpoint shows, such as `DB5EUR01FT012`.
#[must_use]
pub fn edge() -> String {
    let [a, b] = bytes::<2>();
    format!("DB5EUR{:02}FT{:03}", a % 5 + 1, u16::from(b))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_guid_has_its_shape() {
        let guid = super::guid();
        let lengths: Vec<usize> = guid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(guid.as_bytes()[14], b'4');
    }
}
