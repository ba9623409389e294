//! From type to type: heads, references, sizes, names. Only the types on the way to an answer are decoded.

use super::format::{HEAD, Info, kind, word};
use super::{Btf, BtfError};

/// The kernel's and libbpf's limit for chains of types.
pub(super) const MAX_DEPTH: u32 = 32;

/// The head of a type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Type {
    pub(super) id: u32,
    /// Position in the type section.
    pub(super) at: usize,
    pub(super) kind: u8,
    pub(super) flag: bool,
    pub(super) len: u32,
    /// A size in bytes or the number of another type, by kind.
    pub(super) link: u32,
}

impl Type {
    pub(super) fn is_aggregate(self) -> bool {
        matches!(self.kind, kind::STRUCT | kind::UNION)
    }
}

impl Btf<'_> {
    /// Looks through typedefs, qualifiers and type tags.
    pub(super) fn plain(&self, id: u32) -> Result<Type, BtfError> {
        let mut target = self.get(id);
        for _ in 0..MAX_DEPTH {
            match target.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    target = self.get(self.known(target, target.link)?);
                }
                _ => return Ok(target),
            }
        }
        Err(self.fault(target, format!("is one of more than {MAX_DEPTH} typedefs and qualifiers in a row")))
    }

    /// The bytes a type takes; 0 for what has no size (void, functions, forward declarations).
    pub(super) fn size(&self, id: u32) -> Result<u64, BtfError> {
        let mut count = 1u64;
        let mut target = self.plain(id)?;
        for _ in 0..MAX_DEPTH {
            let size = match target.kind {
                kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => u64::from(target.link),
                // The kernel's pointers are as wide as this program's: eBPF needs a 64-bit kernel, and this is no 32-bit program.
                kind::PTR => size_of::<usize>() as u64,
                kind::ARRAY => {
                    let (element, len) = self.array_of(target)?;
                    let Some(product) = count.checked_mul(len.into()) else { break };
                    count = product;
                    target = self.plain(element)?;
                    continue;
                }
                _ => 0,
            };
            return count.checked_mul(size).ok_or_else(|| self.fault(target, "makes an array too large to count".into()));
        }
        Err(self.fault(target, "is an array of too many dimensions".into()))
    }

    /// The element's type number and the number of elements.
    pub(super) fn array_of(&self, array: Type) -> Result<(u32, u32), BtfError> {
        Ok((self.known(array, word(self.types, array.at + HEAD))?, word(self.types, array.at + HEAD + 8)))
    }

    /// Passes on the number of a type that `from` refers to, if there is one.
    pub(super) fn known(&self, from: Type, id: u32) -> Result<u32, BtfError> {
        if id as usize > self.starts.len() {
            return Err(self.fault(from, format!("refers to type {id}; the last is {}", self.starts.len())));
        }
        Ok(id)
    }

    /// Decodes the head of a type; 0 is void.
    fn get(&self, id: u32) -> Type {
        let Some(&at) = self.starts.get((id as usize).wrapping_sub(1)) else {
            return Type { id: 0, at: 0, kind: 0, flag: false, len: 0, link: 0 };
        };
        let at = at as usize;
        let info = Info(word(self.types, at + 4));
        Type { id, at, kind: info.kind(), flag: info.flag(), len: info.len(), link: word(self.types, at + 8) }
    }

    pub(super) fn is_named(&self, offset: u32, name: &str) -> bool {
        self.strings
            .get(offset as usize..)
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    pub(super) fn fault(&self, target: Type, what: String) -> BtfError {
        BtfError::Type { id: target.id, at: self.types_at + target.at, what }
    }
}
