//! Opens the file named by its first argument in its very first instructions.
//!
//! The program has neither a loader nor a runtime: its first system call is the `openat`, its second the exit. What a
//! monitor that begins to look a moment after the `exec` would miss, it misses here. It exits with 0 when the file was
//! opened for reading, else with 1.

#![no_main]

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    // At entry the stack holds argc, argv[0], argv[1]: `openat(AT_FDCWD, argv[1], O_RDONLY)`.
    "mov rsi, [rsp + 16]",
    "mov edi, -100",
    "xor edx, edx",
    "xor r10d, r10d",
    "mov eax, 257",
    "syscall",
    // The sign of the result is the exit code.
    "shr rax, 63",
    "mov edi, eax",
    "mov eax, 231",
    "syscall",
    "ud2",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "ldr x1, [sp, #16]",
    "mov x0, #-100",
    "mov x2, #0",
    "mov x3, #0",
    "mov x8, #56",
    "svc #0",
    "lsr x0, x0, #63",
    "mov x8, #94",
    "svc #0",
    "brk #1",
);
