//! Writes into the object what only the running kernel knows: where it keeps its fields.
//!
//! The programs have them as operands of instructions (`observer-ebpf/src/kernel.rs`), each a placeholder that says which of the numbers
//! of which family belongs there. What clang does for C programs (CO-RE relocations) rustc does not do.

use object::{Object, ObjectSection, SectionKind};
use observer_common::pod::{self, Pod};

/// Why an object cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperandError {
    /// Not an object file.
    #[error("not an object file: {0}")]
    Object(#[from] object::Error),
    /// A placeholder of another version of observer.
    #[error("the object asks for the number {0:#x}, which this observer does not have: it was built from other sources")]
    Unknown(i32),
    /// A number that no instruction can hold.
    #[error("the number {0} does not fit into an instruction")]
    TooLarge(u64),
}

/// Bytes of an instruction: operation, registers, a 16-bit offset, a 32-bit operand (`struct bpf_insn`).
const INSTRUCTION: usize = 8;
/// `BPF_LD | BPF_IMM | BPF_DW`: the only instruction that is two long.
const LOAD_64: u8 = 0x18;
/// `BPF_ALU64 | BPF_MOV | BPF_K` and `BPF_ALU64 | BPF_ADD | BPF_K`: those that have placeholders.
const WITH_PLACEHOLDER: [u8; 2] = [0xb7, 0x07];

/// Numbers of this kernel, and the placeholder that stands for the first of them; the others follow.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'a> {
    first: i32,
    bytes: &'a [u8],
}

impl<'a> Numbers<'a> {
    /// Those of a structure that has nothing but 64-bit numbers.
    pub(super) fn of<T: Pod>(first: i32, all: &'a T) -> Numbers<'a> {
        Numbers { first, bytes: pod::bytes(all) }
    }

    /// What a placeholder stands for.
    fn get(self, operand: i32) -> Option<u64> {
        let index = usize::try_from(operand.checked_sub(self.first)?).ok()?;
        let number = self.bytes.chunks_exact(size_of::<u64>()).nth(index)?;
        number.try_into().ok().map(u64::from_ne_bytes)
    }
}

/// Operands that are placeholders: the upper half is the same in all of them.
const PLACEHOLDERS: i32 = 0x0b5e_0000;

/// Puts the numbers in the places of their placeholders.
///
/// # Errors
///
/// [`OperandError`].
pub(super) fn set(elf: &mut [u8], numbers: &[Numbers<'_>]) -> Result<(), OperandError> {
    let code: Vec<_> = object::File::parse(&*elf)?
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .filter_map(|section| section.file_range())
        .collect();
    for (start, size) in code {
        let end = start.saturating_add(size) as usize;
        let mut instructions = elf.get_mut(start as usize..end).unwrap_or_default().chunks_exact_mut(INSTRUCTION);
        while let Some(instruction) = instructions.next() {
            let [operation, _, _, _, operand @ ..] = instruction else { continue };
            if *operation == LOAD_64 {
                instructions.next();
            } else if WITH_PLACEHOLDER.contains(operation)
                && let Ok(bytes) = <[u8; 4]>::try_from(&*operand)
                && let Some(value) = value(i32::from_le_bytes(bytes), numbers)?
            {
                operand.copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    Ok(())
}

/// What a placeholder stands for; `None` for any other operand.
fn value(operand: i32, numbers: &[Numbers<'_>]) -> Result<Option<i32>, OperandError> {
    if operand & !0xffff != PLACEHOLDERS {
        return Ok(None);
    }
    let number = numbers.iter().find_map(|numbers| numbers.get(operand)).ok_or(OperandError::Unknown(operand))?;
    i32::try_from(number).map(Some).map_err(|_| OperandError::TooLarge(number))
}

#[cfg(test)]
mod tests {
    use observer_common::memory::MemoryOffsets;
    use observer_common::sched::Offsets;
    use observer_common::tasks::TaskOffsets;
    use observer_common::tcp::TcpOffsets;

    use super::*;

    #[test]
    fn values_of_placeholders() {
        let offsets = Offsets { task_pid: 2472, task_tgid: 2476, delays_mask: u64::from(u32::MAX), ..pod::zeroed() };
        let tasks = TaskOffsets { real_parent: 77, ..pod::zeroed() };
        let numbers = [Numbers::of(Offsets::PLACEHOLDER, &offsets), Numbers::of(TaskOffsets::PLACEHOLDER, &tasks)];
        let value = |operand| value(operand, &numbers);
        assert_eq!(value(Offsets::PLACEHOLDER).ok(), Some(Some(2472)));
        assert_eq!(value(Offsets::PLACEHOLDER + 1).ok(), Some(Some(2476)));
        let of_parent = TaskOffsets::PLACEHOLDER + (std::mem::offset_of!(TaskOffsets, real_parent) / 8) as i32;
        assert_eq!(value(of_parent).ok(), Some(Some(77)));
        assert_eq!(value(Offsets::PLACEHOLDER - 1).ok(), Some(None), "any other operand");
        assert!(matches!(value(Offsets::PLACEHOLDER + 0xff), Err(OperandError::Unknown(_))));
        assert!(matches!(value(TcpOffsets::PLACEHOLDER), Err(OperandError::Unknown(_))), "a family that was not given");
        let of_mask = Offsets::PLACEHOLDER + (std::mem::offset_of!(Offsets, delays_mask) / 8) as i32;
        assert!(matches!(value(of_mask), Err(OperandError::TooLarge(_))));
    }

    #[test]
    fn no_placeholder_is_left_in_the_object() {
        let mut object = super::super::loader::object().expect("the checked-in object").into_owned();
        let (offsets, tasks): (Offsets, TaskOffsets) = (pod::zeroed(), pod::zeroed());
        let (memory, tcp): (MemoryOffsets, TcpOffsets) = (pod::zeroed(), pod::zeroed());
        let numbers = [
            Numbers::of(MemoryOffsets::PLACEHOLDER, &memory),
            Numbers::of(Offsets::PLACEHOLDER, &offsets),
            Numbers::of(TaskOffsets::PLACEHOLDER, &tasks),
            Numbers::of(TcpOffsets::PLACEHOLDER, &tcp),
        ];
        let before = object.clone();
        set(&mut object, &numbers).expect("placeholders");
        let changed = object.chunks_exact(4).zip(before.chunks_exact(4)).filter(|(now, before)| now != before).count();
        assert!(changed > 40, "{changed} operands");
        let again = object.clone();
        set(&mut object, &[]).expect("no placeholders");
        assert_eq!(object, again);
    }

    #[test]
    fn not_an_object() {
        assert!(matches!(set(&mut [1, 2, 3], &[]), Err(OperandError::Object(_))));
    }
}
