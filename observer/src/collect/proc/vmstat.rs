//! `/proc/vmstat`: what the kernel itself counts of the page allocator.

use super::Malformed;
use crate::model::host::Vmstat;

/// The sums over all zones; a counter that the kernel does not have is unknown.
pub fn parse(text: &str) -> Result<Vmstat, Malformed> {
    let mut vmstat = Vmstat::default();
    for line in text.lines() {
        let Some((name, number)) = line.split_once(' ') else { continue };
        let field = match name {
            "compact_stall" => &mut vmstat.compactions,
            "oom_kill" => &mut vmstat.oom_kills,
            _ if name.starts_with("pgalloc_") => &mut vmstat.allocated,
            _ if name.starts_with("allocstall_") => &mut vmstat.reclaims,
            _ => continue,
        };
        let number: u64 = number.trim().parse().map_err(|_| Malformed::expected("a number", line))?;
        *field = Some(field.unwrap_or(0).saturating_add(number));
    }
    Ok(vmstat)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums_of_zones() {
        let text = "nr_free_pages 7\npgalloc_dma 1\npgalloc_normal 20\nallocstall_normal 3\nallocstall_movable 4\noom_kill 5\n";
        let expected = Vmstat { allocated: Some(21), reclaims: Some(7), compactions: None, oom_kills: Some(5) };
        assert_eq!(parse(text), Ok(expected));
        assert!(parse("pgalloc_dma many\n").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = parse(&text);
            let _ = parse(&format!("pgalloc_x {text}\noom_kill {text}"));
        }
    }
}
