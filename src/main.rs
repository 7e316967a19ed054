//! Flags and exit code; everything else is the library's.

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// Batches are read on one thread, committed on another and dropped on a third. glibc's allocator answers that with a heap a
/// thread, which costs memory, or with one heap for which the threads wait.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long memory that is free stays with the process: a second, as it comes, is many batches, and their memory would
/// add up. A tenth of a batch's time costs nothing that could be measured; none at all costs a microsecond an event.
/// (`mi_option_purge_delay` of `mimalloc.h`, which the crate does not name.)
const PURGE_DELAY: mi_option_t = 15;
const PURGE_DELAY_MS: core::ffi::c_long = 10;

/// librdkafka and SQLite are C, and have glibc's allocator. Blocks as large as what a fetch brings (384 KiB) are to go back
/// to the system when they are free: by default the first that is freed raises the bound below which glibc keeps them, and
/// a dozen MB stay. Its heaps are two, one beside the other at work: each keeps what has become free in it, 8 MB more with
/// one for each thread.
#[cfg(target_env = "gnu")]
fn bound_glibc() {
    const LARGE_BYTES: libc::c_int = 128 * 1024;
    const HEAPS: libc::c_int = 2;
    // SAFETY: stores numbers in the allocator's settings; nothing else runs yet. Refused, they stay as they were.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}

/// Other C libraries have allocators of their own kind.
#[cfg(not(target_env = "gnu"))]
fn bound_glibc() {}

fn main() -> std::process::ExitCode {
    // SAFETY: a number is stored in the allocator's table of options; nothing else runs yet.
    unsafe { mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
    bound_glibc();
    owlpost::cli::main()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_without_a_name_is_the_purge_delay() {
        // SAFETY: reads the same table. A second is what mimalloc 3 has for this option, and for no other.
        assert_eq!(unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }, 1_000);
    }
}
