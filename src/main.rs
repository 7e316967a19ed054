//! Flags and exit code; everything else is the library's.

/// Batches are read on one thread, committed on another and dropped on a third, which glibc's allocator answers with a
/// heap a thread (twice the memory) or with threads that wait for each other (half the speed).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    owlpost::cli::main()
}
