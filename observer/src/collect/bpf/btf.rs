//! Where the running kernel keeps its fields: a reader for BTF, the type information in `/sys/kernel/btf/vmlinux`.
//!
//! Bytes in, answers out; nothing here opens a file. [`Btf::read`] goes through the type section once, notes where each type starts and
//! where the types of the given names are, and materialises nothing. A question then touches only the few types it is about.
//!
//! Three outcomes are kept apart everywhere: an answer, a [`Missing`] thing (a fact about this kernel, to be reported and worked around)
//! and a [`BtfError`] (the bytes are not BTF).
//!
//! ```text
//! let btf = Btf::read(&bytes, ["task_struct", "cgroup_subsys_id", "btf_trace_sched_switch"])?;
//! let state = btf.member("task_struct.__state|state")?;              // Ok(Member { offset: 24, size: 4, array: None })
//! let cpu = btf.enumerator("cgroup_subsys_id", "cpu_cgrp_id")?;      // Ok(1)
//! let arguments = btf.tracepoint_arguments("sched_switch")?;         // Ok(4)
//! ```
//!
//! The format: `include/uapi/linux/btf.h` and `Documentation/bpf/btf.rst`. Not read: split BTF (modules), the other byte order.

use std::collections::HashMap;

use format::{HEAD, Info, Sections, kind, sections, word};
use types::{MAX_DEPTH, Type};

mod format;
#[cfg(test)]
mod tests;
mod types;

/// Bytes that are not the BTF of this machine: cut short, damaged, of the other byte order, or newer than this reader.
///
/// A thing that this kernel merely does not have is [`Missing`] instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The header, or a section that it places.
    #[error("BTF: header at byte {at:#x}: {what}")]
    Header {
        /// Position in the file, in bytes.
        at: usize,
        /// What is wrong there.
        what: String,
    },
    /// One type.
    #[error("BTF: type {id} at byte {at:#x} {what}")]
    Type {
        /// The type's number; the first is 1.
        id: u32,
        /// Position in the file, in bytes.
        at: usize,
        /// What is wrong with it, to be read after "type 812 at byte 0x3f20".
        what: String,
    },
}

/// What this kernel does not have, or not in the expected form. The text is made for people (`observer doctor`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No definition of this name; a forward declaration is none.
    #[error("no type {0}")]
    Type(String),
    /// The struct is there, the member is not.
    #[error("{within} has no member {name}")]
    Member {
        /// The path up to the struct.
        within: String,
        /// The last step, with its alternatives.
        name: String,
    },
    /// The enum is there, the enumerator is not.
    #[error("enum {within} has no enumerator {name}")]
    Enumerator {
        /// The enum.
        within: String,
        /// The enumerator.
        name: String,
    },
    /// A member exists, but shares its bytes with others: [`Btf::bits`] tells where.
    #[error("{0} is a bitfield")]
    Bitfield(String),
    /// The thing exists, but is something else.
    #[error("{name} is not {wanted}")]
    Form {
        /// The path or type.
        name: String,
        /// What it was expected to be: `a struct`.
        wanted: &'static str,
    },
}

/// The answer to one question: `Ok(Err(_))` when the BTF is sound and this kernel has no such thing.
pub type Answer<T> = Result<Result<T, Missing>, BtfError>;

/// Where a member lies in the struct its path begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the outermost struct.
    pub offset: u64,
    /// Bytes it takes; of an array, all elements together (0 for a flexible array).
    pub size: u64,
    /// Set when the member is an array.
    pub array: Option<Array>,
}

/// The form of an array member; of several dimensions, the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Array {
    /// Bytes from one element to the next.
    pub element_size: u64,
    /// Number of elements; 0 for a flexible array.
    pub len: u32,
}

/// The bits of a member, bitfield or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    /// Bits from the start of the outermost struct, in the machine's bit order: on little-endian machines byte `offset / 8`, shifted
    /// right by `offset % 8`.
    pub offset: u64,
    /// Number of bits.
    pub width: u64,
}

/// The BTF of one kernel, borrowed, with an index of where each type starts (4 bytes per type).
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Position of the type section in the file, for messages.
    types_at: usize,
    /// Start of each type in the type section; the type's number less one is the index.
    starts: Vec<u32>,
    roots: HashMap<&'a [u8], Root>,
}

impl<'a> Btf<'a> {
    /// Reads the header and walks the type section once.
    ///
    /// `names` are the types and functions that will be asked for; of a path only the first step counts, so a list of paths will do. A
    /// name left out is still found later, but by a walk of its own (0.3 ms for 126,000 types; the first takes 1.1 ms).
    ///
    /// # Errors
    ///
    /// [`BtfError`] when a section or a type lies outside the file, a name outside the strings, or a type is of an unknown kind and the
    /// file does not say how long those are. References from type to type are checked when they are followed.
    pub fn read(bytes: &'a [u8], names: impl IntoIterator<Item = &'a str>) -> Result<Self, BtfError> {
        let Sections { types, strings, types_at, sizes } = sections(bytes)?;
        let mut roots = HashMap::new();
        // The names of 70,000 types lie all over two megabytes of strings. Two bytes of each tell nearly all of them apart from the
        // names wanted. Hashing every name instead took five times as long as the whole walk. (Comparing name offsets would be wrong:
        // a name may be the tail of a longer string, and then has several.)
        let mut starts_with = [0u64; 1024];
        for name in names.into_iter().flat_map(|path| alternatives(first_step(path))) {
            roots.insert(name.as_bytes(), Root::default());
            let (word, bit) = prefix_bit(name.as_bytes(), 0);
            starts_with[word] |= bit;
        }

        // The type section of a kernel has 25 bytes per type; too small a guess costs one copy.
        let mut starts = Vec::with_capacity(types.len() / 24);
        let mut at = 0;
        while at < types.len() {
            let fault = |what: String| BtfError::Type { id: number(starts.len()), at: types_at + at, what };
            let Some(head) = types.get(at..).and_then(|rest| rest.first_chunk::<HEAD>()) else {
                return Err(fault("runs past the end of the type section".into()));
            };
            let (name, info) = (word(head, 0) as usize, Info(word(head, 4)));
            let Some((fixed, each)) = sizes[info.kind() as usize] else {
                return Err(fault(format!("is of kind {}, which is unknown", info.kind())));
            };
            let end = (at + HEAD + fixed as usize).saturating_add((each as usize).saturating_mul(info.len() as usize));
            if end > types.len() {
                return Err(fault("runs past the end of the type section".into()));
            }
            if name >= strings.len() {
                return Err(fault(format!("has its name at {name:#x}, past the end of the strings")));
            }
            starts.push(at as u32);
            if matches!(info.kind(), kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::TYPEDEF | kind::FUNC) {
                let (word, bit) = prefix_bit(strings, name);
                if starts_with[word] & bit != 0
                    && let Some(root) = roots.get_mut(string(strings, name))
                {
                    root.note(info.kind(), number(starts.len() - 1));
                }
            }
            at = end;
        }
        Ok(Self { types, strings, types_at, starts, roots })
    }

    /// Where a member lies: `task_struct.se.cfs_rq`.
    ///
    /// The first step is a struct, union or typedef. Members of anonymous structs and unions count as members of the struct around
    /// them; typedefs, `const`, `volatile`, `restrict` and type tags are looked through; pointers and arrays are not. A step can name
    /// alternatives, for fields that were renamed: `task_struct.__state|state`; the first that exists is taken. A path of one step gives
    /// the size of the type. Where a name was defined more than once, the first definition counts, as in the kernel's own look-up.
    ///
    /// # Errors
    ///
    /// [`BtfError`] when a type on the way is malformed.
    pub fn member(&self, path: &str) -> Answer<Member> {
        let place = match self.locate(path)? {
            Ok(place) => place,
            Err(missing) => return Ok(Err(missing)),
        };
        if place.width.is_some() || place.bit % 8 != 0 {
            return Ok(Err(Missing::Bitfield(path.into())));
        }
        let target = self.plain(place.id)?;
        let array = match target.kind {
            kind::ARRAY => {
                let (element, len) = self.array_of(target)?;
                Some(Array { element_size: self.size(element)?, len })
            }
            _ => None,
        };
        Ok(Ok(Member { offset: place.bit / 8, size: self.size(place.id)?, array }))
    }

    /// Where the bits of a member lie. Unlike [`Btf::member`] it answers for bitfields, too (`inet_connection_sock.icsk_ca_state`).
    ///
    /// # Errors
    ///
    /// [`BtfError`] when a type on the way is malformed.
    pub fn bits(&self, path: &str) -> Answer<Bits> {
        let place = match self.locate(path)? {
            Ok(place) => place,
            Err(missing) => return Ok(Err(missing)),
        };
        let width = match place.width {
            Some(width) => width,
            None => self.size(place.id)?.saturating_mul(8),
        };
        Ok(Ok(Bits { offset: place.bit, width }))
    }

    /// The value of an enumerator, exactly: `cgroup_subsys_id`, `cpu_cgrp_id`.
    ///
    /// Encoders before pahole 1.24 (2022) do not mark signed enums, so there a negative value reads as 2³² more.
    ///
    /// # Errors
    ///
    /// [`BtfError`] when a type on the way is malformed.
    pub fn enumerator(&self, within: &str, name: &str) -> Answer<i128> {
        let Root { enumeration, typedef, .. } = self.root(within);
        let Some(id) = [enumeration, typedef].into_iter().find(|&id| id != 0) else {
            return Ok(Err(Missing::Type(within.into())));
        };
        let target = self.plain(id)?;
        let each = match target.kind {
            kind::ENUM => 8,
            kind::ENUM64 => 12,
            _ => return Ok(Err(Missing::Form { name: within.into(), wanted: "an enum" })),
        };
        for at in (target.at + HEAD..).step_by(each).take(target.len as usize) {
            if !self.is_named(word(self.types, at), name) {
                continue;
            }
            let (low, high) = (word(self.types, at + 4), word(self.types, at + 8));
            let wide = u64::from(high) << 32 | u64::from(low);
            return Ok(Ok(match (target.kind, target.flag) {
                (kind::ENUM, false) => low.into(),
                (kind::ENUM, true) => low.cast_signed().into(),
                (_, false) => wide.into(),
                (_, true) => wide.cast_signed().into(),
            }));
        }
        Ok(Err(Missing::Enumerator { within: within.into(), name: name.into() }))
    }

    /// The number of arguments a `tp_btf` program of this tracepoint receives: `sched_switch` has 3, since Linux 5.18 it has 4.
    ///
    /// Read from `typedef void (*btf_trace_NAME)(void *__data, …)` (`include/trace/bpf_probe.h`); `__data` is not counted.
    ///
    /// # Errors
    ///
    /// [`BtfError`] when a type on the way is malformed.
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Answer<u32> {
        let name = format!("btf_trace_{tracepoint}");
        let Root { typedef, .. } = self.root(&name);
        if typedef == 0 {
            return Ok(Err(Missing::Type(name)));
        }
        let pointer = self.plain(typedef)?;
        if pointer.kind == kind::PTR {
            let function = self.plain(self.known(pointer, pointer.link)?)?;
            if function.kind == kind::FUNC_PROTO && function.len > 0 {
                return Ok(Ok(function.len - 1));
            }
        }
        Ok(Err(Missing::Form { name, wanted: "a pointer to a tracepoint's function" }))
    }

    /// Whether a struct, union, enum or typedef of this name is defined.
    pub fn has_type(&self, name: &str) -> bool {
        let Root { aggregate, enumeration, typedef, .. } = self.root(name);
        aggregate | enumeration | typedef != 0
    }

    /// Whether there is a function of this name that BTF describes (not all are: static ones can be inlined away).
    pub fn has_function(&self, name: &str) -> bool {
        self.root(name).function != 0
    }

    /// The types of this name; by a walk when [`Btf::read`] was not told of it.
    fn root(&self, name: &str) -> Root {
        if let Some(root) = self.roots.get(name.as_bytes()) {
            return *root;
        }
        let mut root = Root::default();
        if name.is_empty() {
            return root;
        }
        for (index, &at) in self.starts.iter().enumerate() {
            let info = Info(word(self.types, at as usize + 4));
            if self.is_named(word(self.types, at as usize), name) {
                root.note(info.kind(), number(index));
            }
        }
        root
    }

    /// Follows a path to its last member.
    fn locate(&self, path: &str) -> Answer<Place> {
        let mut steps = path.split('.');
        let first = steps.next().unwrap_or_default();
        let root =
            alternatives(first).map(|name| self.root(name)).flat_map(|root| [root.aggregate, root.typedef]).find(|&id| id != 0);
        let Some(id) = root else {
            return Ok(Err(Missing::Type(first.into())));
        };
        let mut place = Place { bit: 0, width: None, id };
        let mut within = first.to_owned();
        for step in steps {
            let target = self.plain(place.id)?;
            if !target.is_aggregate() {
                return Ok(Err(Missing::Form { name: within, wanted: "a struct" }));
            }
            let mut found = None;
            for name in alternatives(step) {
                found = self.find(target, name, 0, &mut { MAX_MEMBERS })?;
                if found.is_some() {
                    break;
                }
            }
            let Some(found) = found else {
                return Ok(Err(Missing::Member { within, name: step.into() }));
            };
            place = Place { bit: place.bit + found.bit, ..found };
            within = format!("{within}.{step}");
        }
        self.old_bitfield(place).map(Ok)
    }

    /// Finds a member by name in a struct or union and in its anonymous members.
    ///
    /// `left` bounds the members looked at in all: nesting that goes in circles would branch at every level.
    fn find(&self, within: Type, name: &str, depth: u32, left: &mut u32) -> Result<Option<Place>, BtfError> {
        for at in (within.at + HEAD..).step_by(MEMBER).take(within.len as usize) {
            *left = left.saturating_sub(1);
            if *left == 0 || depth > MAX_DEPTH {
                return Err(self.fault(within, "nests anonymous members without end".into()));
            }
            let place = self.place(within, at)?;
            let member_name = word(self.types, at);
            if self.is_named(member_name, name) {
                return Ok(Some(place));
            }
            if self.is_named(member_name, "") {
                let nested = self.plain(place.id)?;
                if nested.is_aggregate()
                    && let Some(found) = self.find(nested, name, depth + 1, left)?
                {
                    return Ok(Some(Place { bit: place.bit + found.bit, ..found }));
                }
            }
        }
        Ok(None)
    }

    /// Decodes the member at `at` of a struct or union.
    fn place(&self, within: Type, at: usize) -> Result<Place, BtfError> {
        let (id, offset) = (self.known(within, word(self.types, at + 4))?, word(self.types, at + 8));
        Ok(if within.flag {
            let width = u64::from(offset >> 24);
            Place { bit: u64::from(offset & 0x00ff_ffff), width: (width != 0).then_some(width), id }
        } else {
            Place { bit: u64::from(offset), width: None, id }
        })
    }

    /// Adds the width of a bitfield in the older encoding, where its integer type says that it has fewer bits than its bytes hold.
    fn old_bitfield(&self, place: Place) -> Result<Place, BtfError> {
        let target = self.plain(place.id)?;
        if place.width.is_some() || target.kind != kind::INT {
            return Ok(place);
        }
        let encoding = word(self.types, target.at + HEAD);
        let (shift, width) = (u64::from(encoding >> 16 & 0xff), u64::from(encoding & 0xff));
        if shift == 0 && width == u64::from(target.link) * 8 {
            return Ok(place);
        }
        Ok(Place { bit: place.bit + shift, width: Some(width), id: place.id })
    }
}

/// Bytes of one member of a struct.
const MEMBER: usize = 12;
/// Members to look at in one search. `task_struct` has some 300; the format allowed 65,535 until it was widened.
const MAX_MEMBERS: u32 = 1 << 18;

/// Where a member lies: bits from the start of the struct, its width when it is a bitfield, the number of its type.
#[derive(Debug, Clone, Copy)]
struct Place {
    bit: u64,
    width: Option<u64>,
    id: u32,
}

/// The types of one name, by C's name spaces; 0 where there is none.
#[derive(Debug, Clone, Copy, Default)]
struct Root {
    aggregate: u32,
    enumeration: u32,
    typedef: u32,
    function: u32,
}

impl Root {
    fn note(&mut self, kind: u8, id: u32) {
        let slot = match kind {
            kind::STRUCT | kind::UNION => &mut self.aggregate,
            kind::ENUM | kind::ENUM64 => &mut self.enumeration,
            kind::TYPEDEF => &mut self.typedef,
            kind::FUNC => &mut self.function,
            _ => return,
        };
        if *slot == 0 {
            *slot = id;
        }
    }
}

/// The type named by a path's first step.
fn first_step(path: &str) -> &str {
    path.split_once('.').map_or(path, |(first, _)| first)
}

/// The names a step allows.
fn alternatives(step: &str) -> impl Iterator<Item = &str> {
    step.split('|').filter(|name| !name.is_empty())
}

/// The place of a string's first two bytes (its end included) in a set of 65,536 bits.
fn prefix_bit(strings: &[u8], at: usize) -> (usize, u64) {
    let byte = |at: usize| strings.get(at).map_or(0, |&byte| usize::from(byte));
    let (first, second) = (byte(at), byte(at + 1));
    (first << 2 | second >> 6, 1 << (second & 63))
}

/// The string that starts at `at`.
fn string(strings: &[u8], at: usize) -> &[u8] {
    let rest = strings.get(at..).unwrap_or_default();
    rest.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The type's number from its index: 0 is void, which is not stored.
fn number(index: usize) -> u32 {
    index as u32 + 1
}
