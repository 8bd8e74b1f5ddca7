//! Quorate's protocols: one paper, one folder, the same file names in each.

pub mod naive;
