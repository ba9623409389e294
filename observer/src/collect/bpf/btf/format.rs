//! The frame of a BTF file: its header, where its sections lie, what kinds of types there are and how long each is.

use super::BtfError;

/// The kinds of types (`BTF_KIND_*`).
pub(super) mod kind {
    pub(crate) const INT: u8 = 1;
    pub(crate) const PTR: u8 = 2;
    pub(crate) const ARRAY: u8 = 3;
    pub(crate) const STRUCT: u8 = 4;
    pub(crate) const UNION: u8 = 5;
    pub(crate) const ENUM: u8 = 6;
    pub(crate) const TYPEDEF: u8 = 8;
    pub(crate) const VOLATILE: u8 = 9;
    pub(crate) const CONST: u8 = 10;
    pub(crate) const RESTRICT: u8 = 11;
    pub(crate) const FUNC: u8 = 12;
    pub(crate) const FUNC_PROTO: u8 = 13;
    pub(crate) const FLOAT: u8 = 16;
    pub(crate) const TYPE_TAG: u8 = 18;
    pub(crate) const ENUM64: u8 = 19;
}

/// What follows the head of a type, by kind: bytes once, and bytes for each of its members, enumerators or parameters.
pub(super) type Sizes = [Option<(u8, u8)>; 128];

/// The kinds known here, `BTF_KIND_INT` (1) to `BTF_KIND_ENUM64` (19).
const KNOWN: [(u8, u8); 19] = [
    (4, 0),  // INT
    (0, 0),  // PTR
    (12, 0), // ARRAY
    (0, 12), // STRUCT
    (0, 12), // UNION
    (0, 8),  // ENUM
    (0, 0),  // FWD
    (0, 0),  // TYPEDEF
    (0, 0),  // VOLATILE
    (0, 0),  // CONST
    (0, 0),  // RESTRICT
    (0, 0),  // FUNC
    (0, 8),  // FUNC_PROTO
    (4, 0),  // VAR
    (0, 12), // DATASEC
    (0, 0),  // FLOAT
    (4, 0),  // DECL_TAG
    (0, 0),  // TYPE_TAG
    (0, 12), // ENUM64
];

/// As read by a machine of the byte order it was written for.
pub(super) const MAGIC: u16 = 0xeb9f;
/// Bytes of the file's header as far as every version has it.
pub(super) const HEADER: usize = 24;
/// Bytes that every type begins with: name, info, and a size or the number of another type.
pub(super) const HEAD: usize = 12;

/// The second word of a type. The newest `btf.h` (2026) took the unused bits for wider lengths and kinds; in older files they are 0.
#[derive(Clone, Copy)]
pub(super) struct Info(pub(super) u32);

impl Info {
    pub(super) fn kind(self) -> u8 {
        (self.0 >> 24) as u8 & 0x7f
    }

    pub(super) fn flag(self) -> bool {
        self.0 >> 31 != 0
    }

    pub(super) fn len(self) -> u32 {
        self.0 & 0x00ff_ffff
    }
}

/// The parts of the file, as its header places them.
pub(super) struct Sections<'a> {
    pub(super) types: &'a [u8],
    pub(super) strings: &'a [u8],
    /// Position of the type section in the file.
    pub(super) types_at: usize,
    pub(super) sizes: Sizes,
}

/// Reads the header.
pub(super) fn sections(bytes: &[u8]) -> Result<Sections<'_>, BtfError> {
    let fault = |at, what: String| BtfError::Header { at, what };
    if bytes.len() < HEADER {
        return Err(fault(0, format!("{} bytes, the header alone has {HEADER}", bytes.len())));
    }
    let magic = u16::from_ne_bytes([bytes[0], bytes[1]]);
    if magic == MAGIC.swap_bytes() {
        return Err(fault(0, "written for the other byte order".into()));
    }
    if magic != MAGIC {
        return Err(fault(0, format!("magic {magic:#06x} instead of {MAGIC:#06x}")));
    }
    if bytes[2] != 1 {
        return Err(fault(2, format!("version {} instead of 1", bytes[2])));
    }
    let header = word(bytes, 4) as usize;
    if header < HEADER {
        return Err(fault(4, format!("header of {header} bytes, {HEADER} are needed")));
    }
    // Each pair of words: the section's start after the header, and its length.
    let section = |pair: usize, name: &str| {
        let at = header.saturating_add(word(bytes, pair) as usize);
        let len = word(bytes, pair + 4) as usize;
        let section = at.checked_add(len).and_then(|end| bytes.get(at..end));
        section.map(|section| (at, section)).ok_or_else(|| {
            fault(pair, format!("{name}: {len} bytes from byte {at:#x} on run past the end of the file at {:#x}", bytes.len()))
        })
    };
    let (types_at, types) = section(8, "type section")?;
    let (strings_at, strings) = section(16, "string section")?;
    // With both ends 0, every offset inside is a string that ends, and offset 0 is the empty one.
    if strings.first() != Some(&0) || strings.last() != Some(&0) {
        return Err(fault(strings_at, "the string section does not begin and end with a zero".into()));
    }

    let mut sizes: Sizes = [None; 128];
    for (size, known) in sizes[1..].iter_mut().zip(KNOWN) {
        *size = Some(known);
    }
    // Since 2026 the file can say how long the types of each kind are (`struct btf_layout`), so that readers can step over kinds they do
    // not know. Anything else in a longer header is none of ours: without a layout, only a kind that is not known is an error.
    if header >= HEADER + 8
        && let Ok((_, layout)) = section(24, "layout section")
    {
        let (layouts, _) = layout.as_chunks::<4>();
        for (size, layout) in sizes.iter_mut().zip(layouts).skip(KNOWN.len() + 1) {
            *size = Some((layout[0], layout[1]));
        }
    }
    Ok(Sections { types, strings, types_at, sizes })
}

/// The number at `at`. Every caller has checked that it is inside; if one had not, 0 would come out, not a panic.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_ne_bytes(*chunk))
}
