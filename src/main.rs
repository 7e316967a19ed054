//! Flags and exit code; everything else is the library's.

fn main() -> std::process::ExitCode {
    one_arena();
    owlpost::cli::main()
}

/// glibc gives each thread that allocates a heap of its own, and what one thread frees another can't use: batches are
/// read on one, committed on another and dropped on a third, which kept 240 MB where one heap keeps 125.
#[cfg(target_env = "gnu")]
fn one_arena() {
    // SAFETY: called first in `main`, before there is another thread; it only sets a number of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(not(target_env = "gnu"))]
fn one_arena() {}
