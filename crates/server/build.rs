//! Compiles the protocol definitions in `proto/`, without `protoc`: messages, services and clients as Rust, and the
//! descriptors, from which the JSON interface learns names and types.

use prost::Message;
use std::path::PathBuf;

const FILES: [&str; 4] = ["proto/rpc.proto", "proto/lock.proto", "proto/election.proto", "proto/lease.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo names a folder to write to")?);
    std::fs::write(folder.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
