//! Reading kernel structures, at offsets that the daemon took from the running kernel's BTF.

pub mod hash;
pub mod offsets;
pub mod path;
pub mod task;

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Reads a field of a structure that the verifier knows the type of: no helper call, and the result keeps its type.
///
/// # Safety
/// `base` is a BTF-typed pointer and `offset` that of a member of type `T`; the verifier checks both.
#[inline(always)]
pub unsafe fn field<T: Copy, B>(base: *const B, offset: &Global<u64>) -> T {
    // SAFETY: the caller's promise. A fault inside reads as zero.
    unsafe { core::ptr::read_volatile(base.byte_add(offset.load() as usize).cast()) }
}

/// Reads a field of a structure that only we know the type of.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: &Global<u64>) -> Result<T, Unreadable> {
    read_at(base + offset.load())
}

/// The kernel's memory could not be read.
pub struct Unreadable;

/// Reads kernel memory.
#[inline(always)]
pub fn read_at<T: Copy>(address: u64) -> Result<T, Unreadable> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes `size_of::<T>()` bytes, or fails; callers ask for integers and arrays of them alone.
    let failed =
        unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void) };
    if failed == 0 {
        // SAFETY: the helper has written it.
        Ok(unsafe { value.assume_init() })
    } else {
        Err(Unreadable)
    }
}
