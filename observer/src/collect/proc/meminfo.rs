//! `/proc/meminfo`. procfs' own type wants fields that small systems and sandboxes leave out, and makes a map of all of them; six are
//! needed here.

use super::Malformed;
use crate::model::host::Memory;

/// Memory in bytes; the kernel tells kibibytes.
pub fn parse(text: &str) -> Result<Memory, Malformed> {
    let [mut total, mut free, mut buffers, mut cached, mut reclaimable, mut available] = [None; 6];
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let field = match name {
            "MemTotal" => &mut total,
            "MemFree" => &mut free,
            "MemAvailable" => &mut available,
            "Buffers" => &mut buffers,
            "Cached" => &mut cached,
            "SReclaimable" => &mut reclaimable,
            _ => continue,
        };
        *field = Some(bytes(value).ok_or_else(|| Malformed::expected("a number of kB", line))?);
    }
    let missing = |name: &str| Malformed::new(format!("no line {name}"));
    Ok(Memory {
        total: total.ok_or_else(|| missing("MemTotal"))?,
        free: free.ok_or_else(|| missing("MemFree"))?,
        buffers: buffers.ok_or_else(|| missing("Buffers"))?,
        // Kernels before 2.6.19 and some sandboxes count no reclaimable slab apart; it is then inside what is used.
        cached: cached.ok_or_else(|| missing("Cached"))?.saturating_add(reclaimable.unwrap_or(0)),
        available,
    })
}

/// `"  24684092 kB"` in bytes.
fn bytes(value: &str) -> Option<u64> {
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    // An exbibyte at most, so that sums of fields cannot overflow.
    kibibytes.checked_mul(1024).filter(|bytes| *bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn states() {
        let text = "MemTotal:  100 kB\nMemFree: 20 kB\nMemAvailable: 50 kB\nBuffers: 5 kB\nCached: 30 kB\nSReclaimable: 7 kB\nHugePages_Total: 0\n";
        let memory = Memory { total: 100 * KIB, free: 20 * KIB, buffers: 5 * KIB, cached: 37 * KIB, available: Some(50 * KIB) };
        assert_eq!(parse(text), Ok(memory));
        let old = "MemTotal: 100 kB\nMemFree: 20 kB\nBuffers: 5 kB\nCached: 30 kB\n";
        assert_eq!(parse(old), Ok(Memory { cached: 30 * KIB, available: None, ..memory }));
    }

    #[test]
    fn nonsense() {
        let check = |text: &str, message: &str| assert_eq!(parse(text).unwrap_err().to_string(), message);
        check("", "no line MemTotal");
        check("MemTotal: x kB", r#"expected a number of kB, found "MemTotal: x kB""#);
        check("MemTotal: 5 MB", r#"expected a number of kB, found "MemTotal: 5 MB""#);
        check("MemTotal: 99999999999999999 kB", r#"expected a number of kB, found "MemTotal: 99999999999999999 kB""#);
        check("MemTotal: 5 kB\nMemFree: 1 kB", "no line Buffers");
    }

    proptest! {
        #[test]
        fn never_panics(text: String, numbers: [u64; 4]) {
            let _ = parse(&text);
            let [total, free, buffers, cached] = numbers;
            if let Ok(memory) = parse(&format!("MemTotal: {total} kB\nMemFree: {free} kB\nBuffers:{buffers} kB\nCached:{cached}kB{text}")) {
                memory.used();
            }
        }
    }
}
