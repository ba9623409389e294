//! `/proc/buddyinfo`: free blocks of 2^order pages by node, zone and order.

use std::collections::BTreeMap;

use super::Malformed;
use crate::model::memory::{FreeBlocks, ZONE_NAMES};

/// All nodes by number. Lines like `Node 0, zone   Normal   8077   5927 …`.
pub fn parse(text: &str) -> Result<BTreeMap<u32, FreeBlocks>, Malformed> {
    let mut nodes = BTreeMap::<u32, FreeBlocks>::new();
    for line in text.lines() {
        let wrong = || Malformed::expected("a node, a zone and numbers of blocks", line);
        let (node, rest) = line.strip_prefix("Node ").and_then(|rest| rest.split_once(", zone ")).ok_or_else(wrong)?;
        let mut words = rest.split_whitespace();
        let zone = words.next().and_then(|name| ZONE_NAMES.iter().position(|known| *known == name)).ok_or_else(wrong)?;
        let counts = words.map(|word| word.parse::<u32>().map(u64::from)).collect::<Result<_, _>>().map_err(|_| wrong())?;
        nodes.entry(node.parse().map_err(|_| wrong())?).or_default().zones.push((zone, counts));
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nodes_and_zones() {
        let text = "Node 0, zone      DMA      0      3 \nNode 0, zone   Normal   8077   5927      4\nNode 1, zone  Movable 1\n";
        let nodes = parse(text).unwrap();
        assert_eq!(nodes[&0].zones, [(0, vec![0, 3]), (2, vec![8077, 5927, 4])]);
        assert_eq!(nodes[&1].zones, [(4, vec![1])]);
        assert!(parse("").unwrap().is_empty());
        for wrong in ["Node x, zone DMA 1\n", "Node 0, zone New 1\n", "Node 0, zone DMA -1\n", "Node 0, zone \n", "\x1b[2J\n"] {
            assert!(parse(wrong).unwrap_err().to_string().starts_with("expected a node, a zone and numbers of blocks, found"));
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: String, line in "Node [0-9]{0,11}, zone +(DMA|Normal)? [0-9 -]{0,40}") {
            let _ = parse(&text);
            let _ = parse(&line);
        }
    }
}
