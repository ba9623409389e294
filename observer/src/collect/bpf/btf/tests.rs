//! A small writer of BTF, and what the reader must make of its files.

use proptest::prelude::*;

use super::format::{HEADER, MAGIC};
use super::*;

const FWD: u8 = 7;
const VAR: u8 = 14;
const DATASEC: u8 = 15;
const DECL_TAG: u8 = 17;

/// A file in the making. Every method that adds a type gives its number.
#[derive(Default)]
struct Blob {
    types: Vec<u32>,
    strings: Vec<u8>,
    count: u32,
    layout: Vec<u8>,
}

impl Blob {
    fn text(&mut self, text: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(text.bytes().chain([0]));
        at
    }

    fn add(&mut self, kind: u8, flag: bool, name: &str, link: u32, len: usize, rest: &[u32]) -> u32 {
        let name = self.text(name);
        let info = u32::from(flag) << 31 | u32::from(kind) << 24 | len as u32;
        self.types.extend([name, info, link]);
        self.types.extend(rest);
        self.count += 1;
        self.count
    }

    fn int(&mut self, name: &str, size: u32) -> u32 {
        self.add(kind::INT, false, name, size, 0, &[size * 8])
    }

    fn link(&mut self, kind: u8, name: &str, to: u32) -> u32 {
        self.add(kind, false, name, to, 0, &[])
    }

    fn array(&mut self, of: u32, len: u32) -> u32 {
        self.add(kind::ARRAY, false, "", 0, 0, &[of, of, len])
    }

    /// Members are name, type and offset in bits (with the width in the upper byte when `flag` is set).
    fn aggregate(&mut self, kind: u8, flag: bool, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let rest: Vec<u32> = members.iter().flat_map(|&(name, id, offset)| [self.text(name), id, offset]).collect();
        self.add(kind, flag, name, size, members.len(), &rest)
    }

    fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        self.aggregate(kind::STRUCT, false, name, size, members)
    }

    fn enumeration(&mut self, flag: bool, name: &str, values: &[(&str, u32)]) -> u32 {
        let rest: Vec<u32> = values.iter().flat_map(|&(name, value)| [self.text(name), value]).collect();
        self.add(kind::ENUM, flag, name, 4, values.len(), &rest)
    }

    fn enumeration64(&mut self, flag: bool, name: &str, values: &[(&str, u64)]) -> u32 {
        let rest: Vec<u32> =
            values.iter().flat_map(|&(name, value)| [self.text(name), value as u32, (value >> 32) as u32]).collect();
        self.add(kind::ENUM64, flag, name, 8, values.len(), &rest)
    }

    fn prototype(&mut self, parameters: usize) -> u32 {
        self.add(kind::FUNC_PROTO, false, "", 0, parameters, &vec![0; parameters * 2])
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.text("");
        let types: Vec<u8> = self.types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let (types_len, strings_len, layout_len) = (types.len(), self.strings.len(), self.layout.len());
        let mut bytes = Vec::from(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        let header = if self.layout.is_empty() { HEADER } else { HEADER + 8 };
        let mut words = vec![header, 0, types_len, types_len, strings_len];
        if !self.layout.is_empty() {
            words.extend([types_len + strings_len, layout_len]);
        }
        bytes.extend(words.iter().flat_map(|&word| (word as u32).to_ne_bytes()));
        bytes.extend(types.iter().chain(&self.strings).chain(&self.layout));
        bytes
    }
}

/// A kernel of a few types, with one of everything.
fn kernel() -> Blob {
    let mut blob = Blob::default();
    let int = blob.int("int", 4);
    let long = blob.int("long unsigned int", 8);
    let character = blob.int("char", 1);
    let three_bits = blob.add(kind::INT, false, "unsigned int", 4, 0, &[2 << 16 | 3]);
    let fwd = blob.link(FWD, "cfs_rq", 0);
    let pointer = blob.link(kind::PTR, "", fwd);
    let constant = blob.link(kind::CONST, "", long);
    let volatile = blob.link(kind::VOLATILE, "", constant);
    let tagged = blob.link(kind::TYPE_TAG, "rcu", volatile);
    let u64_type = blob.link(kind::TYPEDEF, "u64", tagged);
    let comm = blob.array(character, 16);
    let row = blob.array(int, 3);
    let matrix = blob.array(row, 5);
    let flexible = blob.array(long, 0);
    // A declaration before the definition, and a second definition after it.
    blob.link(FWD, "task_struct", 0);
    let entity = blob.structure("sched_entity", 24, &[("load", u64_type, 0), ("cfs_rq", pointer, 128)]);
    let deep = blob.structure("", 16, &[("inner_first", int, 0), ("inner_second", u64_type, 64)]);
    let either = blob.aggregate(kind::UNION, false, "", 16, &[("word", int, 0), ("", deep, 0)]);
    let entity_type = blob.link(kind::TYPEDEF, "entity_t", entity);
    blob.structure(
        "task_struct",
        200,
        &[
            ("__state", int, 0),
            ("pid", int, 32),
            ("", either, 64),
            ("se", entity_type, 256),
            ("comm", comm, 448),
            ("matrix", matrix, 576),
            ("nested", pointer, 1088),
            ("tail", flexible, 1600),
        ],
    );
    blob.structure("task_struct", 8, &[("only_in_the_second", int, 0)]);
    // Bitfields, new encoding: 5 bits at bit 35; then the old one.
    blob.aggregate(
        kind::STRUCT,
        true,
        "flags",
        16,
        &[("whole", int, 0), ("five", int, 5 << 24 | 35), ("aligned", int, 8 << 24 | 64), ("last", character, 96)],
    );
    blob.structure("old_flags", 8, &[("whole", int, 0), ("three", three_bits, 32)]);
    blob.link(kind::TYPEDEF, "anonymous_t", deep);
    let ids = blob.enumeration(false, "cgroup_subsys_id", &[("cpuset_cgrp_id", 0), ("cpu_cgrp_id", 1), ("big", u32::MAX)]);
    blob.enumeration(true, "signed_id", &[("minus_one", u32::MAX)]);
    blob.enumeration64(false, "wide", &[("top", 1 << 63), ("two_words", 0x2_0000_0001)]);
    blob.enumeration64(true, "signed_wide", &[("minus_two", -2i64 as u64)]);
    blob.link(kind::TYPEDEF, "ids_t", ids);
    let prototype = blob.prototype(5);
    let to_prototype = blob.link(kind::PTR, "", prototype);
    blob.link(kind::TYPEDEF, "btf_trace_sched_switch", to_prototype);
    blob.link(kind::TYPEDEF, "btf_trace_not_a_function", int);
    let no_parameters = blob.prototype(0);
    let to_none = blob.link(kind::PTR, "", no_parameters);
    blob.link(kind::TYPEDEF, "btf_trace_no_data", to_none);
    let function = blob.link(kind::FUNC, "schedule", prototype);
    blob.add(DECL_TAG, false, "bpf_kfunc", function, 0, &[u32::MAX]);
    let variable = blob.add(VAR, false, "jiffies", long, 0, &[1]);
    blob.add(DATASEC, false, ".data", 8, 1, &[variable, 0, 8]);
    blob.add(kind::FLOAT, false, "double", 8, 0, &[]);
    blob.link(kind::RESTRICT, "", pointer);
    blob
}

/// Shows an answer in a line: data tables compare texts.
fn show<T: std::fmt::Debug>(answer: Answer<T>) -> String {
    match answer {
        Ok(Ok(value)) => format!("{value:?}"),
        Ok(Err(missing)) => missing.to_string(),
        Err(error) => error.to_string(),
    }
}

fn show_member(btf: &Btf<'_>, path: &str) -> String {
    match btf.member(path) {
        Ok(Ok(Member { offset, size, array: None })) => format!("{offset}+{size}"),
        Ok(Ok(Member { offset, size, array: Some(array) })) => format!("{offset}+{size} {}x{}", array.len, array.element_size),
        other => show(other),
    }
}

/// Runs `ask` twice: with the name given to `read`, and with the name left out.
fn check(name: &str, expected: &str, ask: impl Fn(&Btf<'_>) -> String) {
    let bytes = kernel().bytes();
    for names in [vec![name], vec![]] {
        let btf = Btf::read(&bytes, names).unwrap();
        assert_eq!(ask(&btf), expected, "{name}");
    }
}

#[test]
fn members() {
    for (path, expected) in [
        // Plain, renamed, nested by value through a typedef, arrays.
        ("task_struct.pid", "4+4"),
        ("task_struct.__state|state", "0+4"),
        ("task_struct.state|__state", "0+4"),
        ("task_struct.state|other", "task_struct has no member state|other"),
        ("task_struct.se.cfs_rq", "48+8"),
        ("task_struct.se.load", "32+8"),
        ("task_struct.se", "32+24"),
        ("task_struct.comm", "56+16 16x1"),
        ("task_struct.matrix", "72+60 5x12"),
        ("task_struct.tail", "200+0 0x8"),
        // Anonymous members, two deep.
        ("task_struct.word", "8+4"),
        ("task_struct.inner_first", "8+4"),
        ("task_struct.inner_second", "16+8"),
        // A type alone, a typedef of an anonymous struct, alternatives of types.
        ("task_struct", "0+200"),
        ("anonymous_t.inner_second", "8+8"),
        ("u64", "0+8"),
        ("nothing|sched_entity.cfs_rq", "16+8"),
        // What is not there, or is something else.
        ("task_struct.only_in_the_second", "task_struct has no member only_in_the_second"),
        ("task_struct.pi", "task_struct has no member pi"),
        ("task_struct.pid2", "task_struct has no member pid2"),
        ("task_struct.se.rq", "task_struct.se has no member rq"),
        ("task_struct.nested.rq", "task_struct.nested is not a struct"),
        ("task_struct.comm.x", "task_struct.comm is not a struct"),
        ("task_struct.", "task_struct has no member "),
        ("cfs_rq.rq", "no type cfs_rq"),
        ("runqueue.x", "no type runqueue"),
        ("", "no type "),
        (".", "no type "),
        ("|.|", "no type |"),
        // Bitfields in both encodings, and their plain neighbours.
        ("flags.whole", "0+4"),
        ("flags.last", "12+1"),
        ("flags.five", "flags.five is a bitfield"),
        ("flags.aligned", "flags.aligned is a bitfield"),
        ("old_flags.whole", "0+4"),
        ("old_flags.three", "old_flags.three is a bitfield"),
    ] {
        check(path, expected, |btf| show_member(btf, path));
    }
}

#[test]
fn bits_of_members() {
    for (path, expected) in [
        ("flags.whole", "Bits { offset: 0, width: 32 }"),
        ("flags.five", "Bits { offset: 35, width: 5 }"),
        ("flags.aligned", "Bits { offset: 64, width: 8 }"),
        ("old_flags.three", "Bits { offset: 34, width: 3 }"),
        ("flags.six", "flags has no member six"),
    ] {
        check(path, expected, |btf| show(btf.bits(path)));
    }
}

#[test]
fn enumerators() {
    for (within, name, expected) in [
        ("cgroup_subsys_id", "cpuset_cgrp_id", "0"),
        ("cgroup_subsys_id", "cpu_cgrp_id", "1"),
        ("cgroup_subsys_id", "big", "4294967295"),
        ("ids_t", "cpu_cgrp_id", "1"),
        ("signed_id", "minus_one", "-1"),
        ("wide", "top", "9223372036854775808"),
        ("wide", "two_words", "8589934593"),
        ("signed_wide", "minus_two", "-2"),
        ("cgroup_subsys_id", "cpuacct_cgrp_id", "enum cgroup_subsys_id has no enumerator cpuacct_cgrp_id"),
        ("subsystems", "cpu_cgrp_id", "no type subsystems"),
        ("entity_t", "cpu_cgrp_id", "entity_t is not an enum"),
        ("task_struct", "cpu_cgrp_id", "no type task_struct"),
    ] {
        check(within, expected, |btf| show(btf.enumerator(within, name)));
    }
}

#[test]
fn tracepoints_types_and_functions() {
    for (name, expected) in [
        ("sched_switch", "4"),
        ("sched_wakeup", "no type btf_trace_sched_wakeup"),
        ("not_a_function", "btf_trace_not_a_function is not a pointer to a tracepoint's function"),
        ("no_data", "btf_trace_no_data is not a pointer to a tracepoint's function"),
    ] {
        check(&format!("btf_trace_{name}"), expected, |btf| show(btf.tracepoint_arguments(name)));
    }
    for (name, is_type, is_function) in [
        ("task_struct", true, false),
        ("btf_trace_sched_switch", true, false),
        ("cgroup_subsys_id", true, false),
        ("cfs_rq", false, false),
        ("schedule", false, true),
        ("jiffies", false, false),
        ("", false, false),
    ] {
        check(name, &format!("{is_type} {is_function}"), |btf| format!("{} {}", btf.has_type(name), btf.has_function(name)));
    }
}

/// Strings may share their tails: here `rq` is the end of `cfs_rq`.
#[test]
fn names_inside_longer_strings() {
    let mut blob = Blob::default();
    let int = blob.int("int", 4);
    blob.structure("cfs_rq", 8, &[("nr_running", int, 32)]);
    let first_word = blob.types.len();
    blob.structure("", 12, &[("", int, 64)]);
    let cfs_rq = blob.strings.windows(7).position(|text| text == b"cfs_rq\0").unwrap() as u32;
    let nr_running = blob.strings.windows(11).position(|text| text == b"nr_running\0").unwrap() as u32;
    blob.types[first_word] = cfs_rq + 4;
    blob.types[first_word + 3] = nr_running + 3;
    let bytes = blob.bytes();
    for names in [vec!["rq", "cfs_rq"], vec![]] {
        let btf = Btf::read(&bytes, names).unwrap();
        assert_eq!(show_member(&btf, "rq.running"), "8+4");
        assert_eq!(show_member(&btf, "cfs_rq.nr_running"), "4+4");
    }
}

#[test]
fn lengths_and_kinds_of_newer_files() {
    let build = |layout: Vec<u8>| {
        let mut blob = Blob { layout, ..Blob::default() };
        // More members than 16 bits count, and a kind of the future with 4 bytes and 8 for each of its two elements.
        blob.add(kind::ENUM, false, "long", 4, 70_000, &vec![0; 140_000]);
        blob.add(42, false, "", 0, 2, &[0; 5]);
        let int = blob.int("int", 4);
        blob.structure("rq", 4, &[("clock", int, 0)]);
        blob.bytes()
    };
    let mut layout = vec![0; 43 * 4];
    layout[42 * 4] = 4;
    layout[42 * 4 + 1] = 8;
    // What the file says of a kind that is known here is not needed, and so not believed.
    layout[usize::from(kind::INT) * 4] = 40;
    assert_eq!(show_member(&Btf::read(&build(layout), ["rq"]).unwrap(), "rq.clock"), "0+4");
    assert_eq!(
        Btf::read(&build(vec![]), ["rq"]).unwrap_err().to_string(),
        "BTF: type 2 at byte 0x88ba4 is of kind 42, which is unknown"
    );
}

#[test]
fn a_longer_header() {
    let mut bytes = kernel().bytes();
    bytes[4..8].copy_from_slice(&40u32.to_ne_bytes());
    bytes.splice(HEADER..HEADER, [0; 16]);
    assert_eq!(show_member(&Btf::read(&bytes, ["task_struct"]).unwrap(), "task_struct.pid"), "4+4");
}

#[test]
fn damaged_files() {
    let good = {
        let mut blob = Blob::default();
        let int = blob.int("int", 4);
        blob.structure("rq", 4, &[("clock", int, 0)]);
        blob.bytes()
    };
    // 24 bytes of header, types from 0x18 (int) and 0x28 (struct) to 0x40, strings to 0x4e.
    assert_eq!(good.len(), 0x4e);
    let put = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        bytes
    };
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    let mut unterminated = good.clone();
    *unterminated.last_mut().unwrap() = b'x';
    for (bytes, expected) in [
        (vec![], "BTF: header at byte 0x0: 0 bytes, the header alone has 24"),
        (good[..23].to_vec(), "BTF: header at byte 0x0: 23 bytes, the header alone has 24"),
        (b"\x7fELF".repeat(10), "BTF: header at byte 0x0: magic 0x457f instead of 0xeb9f"),
        (swapped, "BTF: header at byte 0x0: written for the other byte order"),
        (put(0, u32::from(MAGIC) | 2 << 16), "BTF: header at byte 0x2: version 2 instead of 1"),
        (put(4, 8), "BTF: header at byte 0x4: header of 8 bytes, 24 are needed"),
        (
            put(12, 1000),
            "BTF: header at byte 0x8: type section: 1000 bytes from byte 0x18 on run past the end of the file at 0x4e",
        ),
        (
            put(20, 15),
            "BTF: header at byte 0x10: string section: 15 bytes from byte 0x40 on run past the end of the file at 0x4e",
        ),
        (
            put(4, u32::MAX),
            "BTF: header at byte 0x8: type section: 40 bytes from byte 0xffffffff on run past the end of the file at 0x4e",
        ),
        (put(20, 0), "BTF: header at byte 0x40: the string section does not begin and end with a zero"),
        (unterminated, "BTF: header at byte 0x40: the string section does not begin and end with a zero"),
        (put(12, 39), "BTF: type 2 at byte 0x28 runs past the end of the type section"),
        (put(12, 20), "BTF: type 2 at byte 0x28 runs past the end of the type section"),
        (put(0x18 + 4, 0), "BTF: type 1 at byte 0x18 is of kind 0, which is unknown"),
        (put(0x18 + 4, 0x7f00_0000), "BTF: type 1 at byte 0x18 is of kind 127, which is unknown"),
        (put(0x28 + 4, 0x04ff_ffff), "BTF: type 2 at byte 0x28 runs past the end of the type section"),
        (put(0x28, 14), "BTF: type 2 at byte 0x28 has its name at 0xe, past the end of the strings"),
    ] {
        assert_eq!(Btf::read(&bytes, ["rq"]).unwrap_err().to_string(), expected);
    }
    // A bad reference inside a sound frame is found when it is followed.
    let bytes = put(0x28 + 16, 99);
    assert_eq!(
        show_member(&Btf::read(&bytes, ["rq"]).unwrap(), "rq.clock"),
        "BTF: type 2 at byte 0x28 refers to type 99; the last is 2"
    );
}

#[test]
fn circles_end() {
    let mut blob = Blob::default();
    // 1 and 2: typedefs of each other.
    blob.link(kind::TYPEDEF, "chicken", 2);
    blob.link(kind::TYPEDEF, "egg", 1);
    // 3: a struct of a thousand anonymous copies of itself: 1000³² paths.
    let copies = vec![("", 3, 0); 1000];
    blob.structure("russian_doll", 8, &copies);
    // 4: an array of itself. 5 to 7: arrays with more elements than fit a number.
    blob.array(4, 2);
    blob.int("int", 4);
    blob.array(5, u32::MAX);
    blob.array(6, u32::MAX);
    blob.array(7, u32::MAX);
    blob.structure("holder", 8, &[("itself", 4, 0), ("huge", 8, 0), ("void", 0, 0)]);
    let bytes = blob.bytes();
    let btf = Btf::read(&bytes, ["chicken", "russian_doll", "holder"]).unwrap();
    for (path, expected) in [
        ("chicken", "BTF: type 1 at byte 0x18 is one of more than 32 typedefs and qualifiers in a row"),
        ("chicken.x", "BTF: type 1 at byte 0x18 is one of more than 32 typedefs and qualifiers in a row"),
        ("russian_doll.x", "BTF: type 3 at byte 0x30 nests anonymous members without end"),
        ("holder.void", "0+0"),
    ] {
        assert_eq!(show_member(&btf, path), expected);
    }
    for path in ["holder.itself", "holder.huge"] {
        assert!(show_member(&btf, path).contains("array"), "{}", show_member(&btf, path));
    }
}

/// Asks for everything `kernel` has, of whatever `bytes` are. Nothing to compare: it must come back.
fn ask_everything(bytes: &[u8]) {
    const NAMES: [&str; 12] = [
        "task_struct",
        "flags",
        "old_flags",
        "anonymous_t",
        "cgroup_subsys_id",
        "signed_id",
        "wide",
        "ids_t",
        "entity_t",
        "rq",
        "btf_trace_sched_switch",
        "schedule",
    ];
    let Ok(btf) = Btf::read(bytes, NAMES) else { return };
    for step in ["pid", "se.cfs_rq", "se.x", "inner_second", "comm", "matrix", "tail", "five", "three", "a|b"] {
        for name in NAMES.iter().chain(&["sched_entity"]) {
            let _ = (btf.member(&format!("{name}.{step}")), btf.bits(&format!("{name}.{step}")));
        }
    }
    for name in NAMES {
        let _ = (btf.enumerator(name, "two_words"), btf.member(name), btf.has_type(name), btf.has_function(name));
    }
    let _ = btf.tracepoint_arguments("sched_switch");
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        ask_everything(&bytes);
    }

    /// Random types inside a sound frame.
    #[test]
    fn any_types(words in proptest::collection::vec(prop_oneof![0u32..32, any::<u32>(), (1u32..20, 0u32..4).prop_map(|(kind, len)| kind << 24 | len)], 0..200)) {
        let mut blob = kernel();
        blob.types.extend(words);
        ask_everything(&blob.bytes());
    }

    /// A good file with some words replaced (small numbers make circles) and its end cut off.
    #[test]
    fn any_damage(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), prop_oneof![0u32..64, any::<u32>()]), 0..12),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut bytes = kernel().bytes();
        for (place, value) in changes {
            let at = place.index(bytes.len() / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        ask_everything(&bytes);
    }
}

/// What the reader makes of the machine it is tested on.
#[test]
fn the_running_kernel() {
    let path = "/sys/kernel/btf/vmlinux";
    let Ok(bytes) = std::fs::read(path) else {
        println!("{path} cannot be read here: nothing tested");
        return;
    };
    let btf = Btf::read(&bytes, ["task_struct", "cgroup_subsys_id", "btf_trace_sched_switch"]).unwrap();
    assert_eq!(btf.member("task_struct.pid").unwrap().unwrap().size, 4);
    assert_eq!(btf.member("task_struct.comm").unwrap().unwrap().array, Some(Array { element_size: 1, len: 16 }));
    assert_eq!(btf.member("task_struct.__state|state").unwrap().unwrap().offset % 4, 0);
    assert!((3..=4).contains(&btf.tracepoint_arguments("sched_switch").unwrap().unwrap()));
    assert!(btf.enumerator("cgroup_subsys_id", "cpu_cgrp_id").unwrap().is_ok());
    assert!(btf.has_function("schedule"));
}
