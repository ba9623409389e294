//! Writes into the object what only the running kernel knows: where it keeps its fields.
//!
//! The programs have them as operands of instructions (`observer-ebpf/src/kernel.rs`), each a placeholder that says which of the numbers
//! of a family belongs there. What clang does for C programs (CO-RE relocations) rustc does not do.

use object::{Object, ObjectSection, SectionKind};
use observer_common::memory::MemoryOffsets;
use observer_common::pod;
use observer_common::sched::Offsets;
use observer_common::tasks::TaskOffsets;

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

/// The numbers of all families.
pub(super) struct Numbers {
    /// The scheduler family's, which others use, too.
    pub(super) sched: Offsets,
    /// The task iterator's.
    pub(super) tasks: TaskOffsets,
    /// The memory family's.
    pub(super) memory: MemoryOffsets,
}

impl Numbers {
    /// Each family's with its first placeholder; there are fewer than [`EACH`] in each.
    fn families(&self) -> [(i32, &[u8]); 3] {
        [
            (Offsets::PLACEHOLDER, pod::bytes(&self.sched)),
            (TaskOffsets::PLACEHOLDER, pod::bytes(&self.tasks)),
            (MemoryOffsets::PLACEHOLDER, pod::bytes(&self.memory)),
        ]
    }

    /// Puts the numbers in the places of their placeholders.
    ///
    /// # Errors
    ///
    /// [`OperandError`].
    pub(super) fn put_into(&self, elf: &mut [u8]) -> Result<(), OperandError> {
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
                    && let Some(value) = self.value(i32::from_le_bytes(bytes))?
                {
                    operand.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        Ok(())
    }

    /// What a placeholder stands for; `None` for any other operand.
    fn value(&self, operand: i32) -> Result<Option<i32>, OperandError> {
        if !(0..ALL).contains(&operand.wrapping_sub(Offsets::PLACEHOLDER)) {
            return Ok(None);
        }
        let number = self.families().into_iter().find_map(|(first, bytes)| {
            let index = operand.checked_sub(first).filter(|index| (0..EACH).contains(index))?;
            let bytes = bytes.chunks_exact(size_of::<u64>()).nth(index as usize)?;
            bytes.try_into().ok().map(u64::from_ne_bytes)
        });
        let number = number.ok_or(OperandError::Unknown(operand))?;
        i32::try_from(number).map(Some).map_err(|_| OperandError::TooLarge(number))
    }
}

/// Placeholders of one family.
const EACH: i32 = TaskOffsets::PLACEHOLDER - Offsets::PLACEHOLDER;
/// Of all families that there may ever be.
const ALL: i32 = 0x1_0000;

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Numbers {
        Numbers { sched: pod::zeroed(), tasks: pod::zeroed(), memory: pod::zeroed() }
    }

    #[test]
    fn values_of_placeholders() {
        let mut numbers = numbers();
        numbers.sched = Offsets { task_pid: 2472, task_tgid: 2476, delays_mask: u64::from(u32::MAX), ..numbers.sched };
        numbers.tasks.real_parent = 77;
        numbers.memory.has_current = 1;
        assert_eq!(numbers.value(Offsets::PLACEHOLDER).ok(), Some(Some(2472)));
        assert_eq!(numbers.value(Offsets::PLACEHOLDER + 1).ok(), Some(Some(2476)));
        assert_eq!(numbers.value(TaskOffsets::PLACEHOLDER).ok(), Some(Some(77)));
        assert_eq!(numbers.value(MemoryOffsets::PLACEHOLDER).ok(), Some(Some(1)));
        assert_eq!(numbers.value(Offsets::PLACEHOLDER - 1).ok(), Some(None), "any other operand");
        assert!(matches!(numbers.value(Offsets::PLACEHOLDER + EACH - 1), Err(OperandError::Unknown(_))));
        let of_mask = Offsets::PLACEHOLDER + (std::mem::offset_of!(Offsets, delays_mask) / 8) as i32;
        assert!(matches!(numbers.value(of_mask), Err(OperandError::TooLarge(_))));
    }

    #[test]
    fn no_placeholder_is_left_in_the_object() {
        let mut object = super::super::loader::object().expect("the checked-in object").into_owned();
        let before = object.clone();
        numbers().put_into(&mut object).expect("placeholders");
        let changed = object.chunks_exact(4).zip(before.chunks_exact(4)).filter(|(now, before)| now != before).count();
        assert!(changed > 40, "{changed} operands");
        let again = object.clone();
        numbers().put_into(&mut object).expect("no placeholders");
        assert_eq!(object, again);
    }

    #[test]
    fn not_an_object() {
        assert!(matches!(numbers().put_into(&mut [1, 2, 3]), Err(OperandError::Object(_))));
    }
}
