//! halo-sketch
