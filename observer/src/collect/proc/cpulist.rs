//! The kernel's list format of CPUs (`%*pbl`): `0-3,8,10-11`.

use super::Malformed;

/// No kernel has as many CPUs (NR_CPUS is 8192 at most), so that a nonsensical range cannot fill the memory.
const MAX: u32 = 1 << 16;

/// The CPUs of a list, ascending. An empty list is fine: a memory node can have no CPU.
pub fn parse(text: &str) -> Result<Vec<u32>, Malformed> {
    let text = text.trim();
    let wrong = |part: &str| Malformed::expected("an ascending list of CPUs", part);
    let mut cpus = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(wrong(part)) };
        if last < first || cpus.last().is_some_and(|before| *before >= first) {
            return Err(wrong(part));
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

fn number(word: &str) -> Option<u32> {
    word.parse().ok().filter(|number| *number < MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists() {
        let check = |text: &str, cpus: &[u32]| assert_eq!(parse(text).as_deref(), Ok(cpus));
        check("0-3,8,10-11\n", &[0, 1, 2, 3, 8, 10, 11]);
        check("0\n", &[0]);
        check("\n", &[]);
        check("65535", &[65535]);
    }

    #[test]
    fn nonsense() {
        for text in ["x", "1-", "-1", "3-1", "0,0", "2,1", "0-3,3", "0,,1", ",", "1 2", "65536", "0-4294967295", "0-3:1/2"] {
            assert!(parse(text).unwrap_err().to_string().starts_with("expected an ascending list of CPUs"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: String, list in "[0-9]{0,6}([-,][0-9]{0,6}){0,5}") {
            let _ = parse(&text);
            if let Ok(cpus) = parse(&list) {
                prop_assert!(cpus.is_sorted() && cpus.len() <= MAX as usize);
            }
        }
    }
}
