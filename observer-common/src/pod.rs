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
integers!(u32, u64);

// SAFETY: an array has no padding between its elements, and each element is Pod.
#[allow(unsafe_code, reason = "arrays of plain data are plain data")]
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}
