//! The process's memory, its flags and its exit code; everything else is the library's.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{mi_malloc, mi_option_set, mi_option_t, mi_realloc, mi_zalloc};

/// Batches are read on one thread, committed on another and dropped on a third. glibc's allocator answers that with a heap a
/// thread, which costs memory, or with one heap for which the threads wait.
#[global_allocator]
static ALLOCATOR: Heap = Heap(mimalloc::MiMalloc);

/// mimalloc, asked for an alignment only by those who need one. Its calls that take an alignment look for a block with
/// room to move in, which costs intake a microsecond an event; without, a block is aligned to the size of a pointer at
/// least, whatever its size.
struct Heap(mimalloc::MiMalloc);

/// Whether every block is aligned enough.
const fn is_plain(layout: Layout) -> bool {
    layout.align() <= size_of::<usize>()
}

// SAFETY: blocks are mimalloc's, which frees and grows what either of its kinds of call gave; a null is passed on.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { if is_plain(layout) { mi_malloc(layout.size()).cast() } else { self.0.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { if is_plain(layout) { mi_zalloc(layout.size()).cast() } else { self.0.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { self.0.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe {
            if is_plain(layout) { mi_realloc(block.cast(), size).cast() } else { self.0.realloc(block, layout, size) }
        }
    }
}

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
    fn every_block_is_aligned_as_it_was_asked_for() {
        for align in [1, 2, 4, 8, 16, 64, 4_096] {
            for size in (1..200).chain([1_000, 5_000, 100_000, 3_000_000]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the size is not 0, and each block is freed with the layout that it has.
                unsafe {
                    let block = ALLOCATOR.alloc_zeroed(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{size} {align}");
                    assert_eq!(std::slice::from_raw_parts(block, size).iter().position(|byte| *byte != 0), None);
                    block.write_bytes(7, size);
                    let block = ALLOCATOR.realloc(block, layout, size * 2);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{size} {align}, grown");
                    assert!(std::slice::from_raw_parts(block, size).iter().all(|byte| *byte == 7));
                    ALLOCATOR.dealloc(block, Layout::from_size_align(size * 2, align).unwrap());
                    let block = ALLOCATOR.alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{size} {align}");
                    ALLOCATOR.dealloc(block, layout);
                }
            }
        }
    }

    #[test]
    fn the_option_without_a_name_is_the_purge_delay() {
        // SAFETY: reads the same table. A second is what mimalloc 3 has for this option, and for no other.
        assert_eq!(unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }, 1_000);
    }
}
