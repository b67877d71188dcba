//! What ADD takes for an archive.

use std::io::Read;

use crate::error::{Result, quote};
use crate::oci::ImagePath;
use crate::rootfs::compress::{Compression, decompress};
use crate::rootfs::writer::LayerWriter;

/// Unpacks an archive called `name` below a directory. Without `owner`, members keep theirs.
pub fn unpack(writer: &mut LayerWriter, target: &ImagePath, file: impl Read + Send, name: &str, owner: Option<(u32, u32)>) -> Result<()> {
    let unpacked = writer.unpack_onto(target, decompress(file)?, owner);
    unpacked.map(drop).map_err(|e| e.context(format!("can't unpack {}", quote(name))))
}

/// Whether a file is a tar archive behind any compression that ADD knows.
pub fn is_tar(file: impl Read + Send) -> Result<bool> {
    let mut file = file;
    let mut start = [0; 512];
    let length = read_full(&mut file, &mut start);
    if Compression::detect(&start[..length]) == Compression::None {
        return Ok(looks_like_tar(&start[..length]));
    }
    let rest = std::io::Cursor::new(start[..length].to_vec()).chain(file);
    let Ok(mut inner) = decompress(rest) else { return Ok(false) };
    let mut header = [0; 512];
    let length = read_full(&mut inner, &mut header);
    Ok(looks_like_tar(&header[..length]))
}

/// Reads until full, end or error; what can't be read is no archive.
fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> usize {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) | Err(_) => break,
            Ok(n) => length += n,
        }
    }
    length
}

/// A tar header proves itself by its checksum (POSIX ustar); old V7 archives have no magic.
fn looks_like_tar(block: &[u8]) -> bool {
    let Ok(block) = <&[u8; 512]>::try_from(block) else { return false };
    let field = std::str::from_utf8(&block[148..156]).unwrap_or_default().trim_matches(['\0', ' ']);
    let sum: u32 = block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
    u32::from_str_radix(field, 8).is_ok_and(|stored| stored == sum && block[0] != 0)
}
