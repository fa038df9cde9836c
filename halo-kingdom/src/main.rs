//! halo-kingdom
fn main() {}
