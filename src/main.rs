//! Flags and exit code; everything else is the library's.

/// Batches are read on one thread, committed on another and dropped on a third. glibc's allocator answers that with a heap a
/// thread, which costs memory, or with one heap for which the threads wait.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    owlpost::cli::main()
}
