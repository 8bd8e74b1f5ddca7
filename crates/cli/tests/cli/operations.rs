//! The commands of `docs/operations.md`.

use crate::common::pages;

#[test]
fn every_command_of_the_handbook_works() {
    pages::run(&pages::script_of("operations.md"));
}
