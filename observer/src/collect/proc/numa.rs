//! `/sys/devices/system/node/node*/numastat`: where pages were given and where the tasks ran that asked.

use std::path::Path;

use super::file::{self, Error, Malformed};
use super::topology::numbered;
use crate::model::Locality;

/// All nodes by number, ascending; none where the kernel knows no nodes.
pub fn read(sys: &Path) -> Result<Vec<(u32, Locality)>, Error> {
    let nodes = match numbered(&sys.join("devices/system/node"), "node") {
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        nodes => nodes?,
    };
    let mut buffer = Vec::new();
    let mut read =
        |(number, node): (u32, std::path::PathBuf)| Ok((number, file::parse(&node.join("numastat"), &mut buffer, parse)?));
    nodes.into_iter().map(&mut read).collect()
}

/// Lines of a name and a number of pages.
fn parse(text: &str) -> Result<Locality, Malformed> {
    let pages = |name: &str| {
        let number = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let number = number.ok_or_else(|| Malformed::new(format!("no line {name}")))?;
        number.trim().parse().map_err(|_| Malformed::expected("a number of pages", number))
    };
    Ok(Locality { local: pages("local_node")?, remote: pages("other_node")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_and_remote() {
        let text = "numa_hit 30\nnuma_miss 2\nnuma_foreign 1\ninterleave_hit 5\nlocal_node 27\nother_node 5\n";
        assert_eq!(parse(text).unwrap(), Locality { local: 27, remote: 5 });
        assert!(parse("local_node x\nother_node 5\n").unwrap_err().to_string().contains("number of pages"));
        assert!(parse("local_node 1\n").is_err());
        assert!(read(Path::new("/nonexistent")).unwrap().is_empty(), "a kernel without nodes");
    }
}
