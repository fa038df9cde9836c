//! halo-duchy
fn main() {}
