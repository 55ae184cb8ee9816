//! The program `portcullis`: see [`portcullis::cli`].

use std::process::ExitCode;

/// Measured: 0.5 µs a request less than with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// sysexits.h: EX_SOFTWARE.
const BUG: u8 = 70;

fn main() -> ExitCode {
    // The panic's own text has been printed by then.
    std::panic::catch_unwind(portcullis::cli::run).unwrap_or(ExitCode::from(BUG))
}
