//! Plain old data: types whose every bit pattern is a value, so that memory shared with the kernel side may be read as one.

/// A type that may be read out of memory which somebody else wrote.
///
/// # Safety
///
/// Every bit pattern of the type's size must be a valid value, and the type must have no padding. [`pod!`](crate::pod!) is the only
/// implementor and checks the second half at compile time.
#[allow(unsafe_code, reason = "the promise that the macro below makes")]
pub unsafe trait Pod: Copy + 'static {}

/// The bytes of a value.
pub fn bytes<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: Pod has no padding, so every byte of it is initialised; the slice borrows the value.
    #[allow(unsafe_code, reason = "the one cast to bytes")]
    unsafe {
        core::slice::from_raw_parts(core::ptr::from_ref(value).cast(), core::mem::size_of::<T>())
    }
}

/// The bytes of a list of values, to be written into: whatever comes there is a value.
pub fn bytes_mut<T: Pod>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: no padding, and every bit pattern is a value, so that no write through the slice can make an invalid one; it borrows the
    // values, whose size in bytes fits isize as that of every slice.
    #[allow(unsafe_code, reason = "the one cast to writable bytes")]
    unsafe {
        core::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), core::mem::size_of_val(values))
    }
}

/// The value whose bytes are all zero.
pub const fn zeroed<T: Pod>() -> T {
    // SAFETY: every bit pattern of a Pod is a value.
    #[allow(unsafe_code, reason = "the one value from nothing")]
    unsafe {
        core::mem::zeroed()
    }
}

/// Declares a `repr(C)` struct of integers and arrays of [`Pod`](crate::pod::Pod) fields, and refuses padding at compile time.
#[macro_export]
macro_rules! pod {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)+ }

        const _: () = assert!(
            core::mem::size_of::<$name>() == 0 $(+ core::mem::size_of::<$type>())+,
            concat!(stringify!($name), " has padding"),
        );
        const _: () = { const fn fields_are_pod<T: $crate::pod::Pod>() {} $(fields_are_pod::<$type>();)+ };

        // SAFETY: repr(C), no padding (asserted above), every field is itself Pod (asserted above).
        #[allow(unsafe_code, reason = "the one place where Pod is promised")]
        unsafe impl $crate::pod::Pod for $name {}
    };
}

macro_rules! integers {
    ($($type:ty),+) => { $(
        // SAFETY: an integer has no padding and no invalid bit pattern.
        #[allow(unsafe_code, reason = "integers are plain data")]
        unsafe impl Pod for $type {}
    )+ };
}
integers!(u8, u32, u64);

// SAFETY: an array has no padding between its elements, and each element is Pod.
#[allow(unsafe_code, reason = "arrays of plain data are plain data")]
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}
