//! The two notations that Kubernetes has for amounts: durations (`48h`, `1m30s`) and quantities (`1Gi`). Pure.
//!
//! The schema's rules have refused what is not of these forms; here it is asked again, because an object may have been
//! stored under an older schema, and nothing overflows whatever is written.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
pub use mailroute_route::quantity::thousandths;
use mailroute_route::quantity::{self, whole};

/// Sizes in bytes as people write them: a number with a suffix or without one.
pub const SIZE: &str = "^[0-9]+([.][0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$";

/// Amounts of processor time, in cores; of memory as well, which nobody counts in thousandths.
pub const AMOUNT: &str = "^[0-9]+([.][0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$";

/// The CEL rule that a field, an integer or a string, has this form. What the API server says of a `pattern` would be the
/// regular expression; what it says of a rule is a sentence.
pub fn has_form(form: &str) -> String {
    // Only a string is equal to itself as a string.
    format!("self == string(self) ? self.matches('{form}') : self >= 0")
}

/// The CEL rule that a field, an integer or a string, is a size between two others, which both are allowed.
pub fn is_size_within(least: &str, greatest: &str) -> String {
    let bound =
        |bound: &str, is_kept: &str| format!("quantity(self).compareTo(quantity('{bound}')) {is_kept} 0");
    let as_number = |bound: &str, is_kept: &str| format!("self {is_kept} quantity('{bound}').asInteger()");
    format!(
        "self == string(self) ? self.matches('{SIZE}') && {} && {} : {} && {}",
        bound(least, ">="),
        bound(greatest, "<="),
        as_number(least, ">="),
        as_number(greatest, "<=")
    )
}

/// The CEL rule that one field of the spec is a size of at least so many times another. Passes when one of them is no
/// size, which its own rule tells.
pub fn is_size_of_at_least(field: &str, times: f64, other: &str) -> String {
    let is_none = |field: &str| format!("({field} == string({field}) && !isQuantity({field}))");
    let bytes = |field: &str| {
        format!("({field} == string({field}) ? quantity({field}).asApproximateFloat() : double({field}))")
    };
    let (is_none, bytes) = ([is_none(field), is_none(other)], [bytes(field), bytes(other)]);
    format!("{} || {} || {} >= {times:.1} * {}", is_none[0], is_none[1], bytes[0], bytes[1])
}

/// The CEL rule that one field of the spec is a size of at least so many bytes. Passes when it is no size.
pub fn is_size_of_at_least_bytes(field: &str, bytes: u64) -> String {
    format!(
        "{field} == string({field}) ? !isQuantity({field}) || quantity({field}).asApproximateFloat() >= {bytes}.0 : {field} >= {bytes}"
    )
}

/// Whole seconds of a duration of hours, minutes and seconds, in this order and each at most once.
pub fn seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0_u64;
    for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
        let Some((number, behind)) = rest.split_once(unit) else { continue };
        sum = sum.checked_add(whole(number)?.checked_mul(seconds)?)?;
        rest = behind;
    }
    (rest.is_empty() && !text.is_empty()).then_some(sum)
}

/// Whole bytes of a quantity, rounded down.
pub fn bytes(quantity: &Quantity) -> Option<u64> {
    quantity::bytes(&quantity.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_seconds() {
        for (text, expected) in [
            ("48h", Some(172_800)),
            ("1h30m", Some(5400)),
            ("1m1s", Some(61)),
            ("90s", Some(90)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("h", None),
            ("1s1m", None),
            ("1m1m", None),
            ("-1h", None),
            ("+1h", None),
            ("1.5h", None),
            ("2d", None),
            ("99999999999999999999h", None),
            ("9999999999999999999h", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
