//! The turns of strangers: sidecars that the operator has never answered.
//!
//! Nobody could tell them when they may send, so both programs compute it from what both know: the pod's uid, and time cut into
//! slices of a minute. A stranger sends rarely; the operator, which sees the pod and hears nothing of it, keeps that much free.

/// Slices in a round. A stranger sends one message in one of them.
pub const SLICES: u32 = 16;

/// How many minutes after its start a stranger takes its first turn.
pub const AFTER: u32 = 10;

/// Most recipients of a stranger in a day.
pub const RECIPIENTS: u32 = 100;

/// The slice of a pod, below [`SLICES`]. Others may have the same.
pub fn slice(uid: &str) -> u32 {
    // FNV-1a. Uids are the API server's, so nobody gains by looking for one.
    let mix = |hash: u32, octet: u8| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193);
    let hash = uid.bytes().fold(0x811c_9dc5, mix);
    (hash ^ (hash >> 16)) % SLICES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_spread_over_all_slices() {
        let mut pods = [0; SLICES as usize];
        for n in 0..1600 {
            pods[slice(&format!("6c9e8e0a-1f7b-4b62-9d0e-{n:012x}")) as usize] += 1;
        }
        assert!(pods.iter().all(|count| (60..=140).contains(count)), "{pods:?}");
    }

    #[test]
    fn the_slice_of_a_pod_is_the_same_in_every_release() {
        assert_eq!(slice("6c9e8e0a-1f7b-4b62-9d0e-000000000001"), 6);
    }
}
