//! A directory that PostgreSQL asks whether a password is right: so a test sees the password that came, in clear, as RDS
//! sees its tokens. Speaks as much of LDAP (RFC 4511) as a simple bind needs.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

const BIND: u8 = 0x60;
const SIMPLE: u8 = 0x80;
const INVALID_CREDENTIALS: u8 = 49;

/// Lives as long as the process. `accepts` is asked for each password.
pub fn start(accepts: impl Fn(&str) -> bool + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepts = Arc::new(accepts);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let accepts = accepts.clone();
            std::thread::spawn(move || answer(stream, &*accepts));
        }
    });
    port
}

fn answer(mut stream: TcpStream, accepts: &dyn Fn(&str) -> bool) -> io::Result<()> {
    loop {
        let (_, message) = element(&mut stream)?;
        let mut rest = &message[..];
        let (_, id) = element(&mut rest)?;
        let (what, body) = element(&mut rest)?;
        if what != BIND {
            return Ok(());
        }
        let mut body = &body[..];
        let (_version, _name, (kind, password)) = (element(&mut body)?, element(&mut body)?, element(&mut body)?);
        let right = kind == SIMPLE && accepts(&String::from_utf8_lossy(&password));
        let code = if right { 0 } else { INVALID_CREDENTIALS };
        let result =
            [&[0x02, u8::try_from(id.len()).unwrap()], &id[..], &[0x61, 7, 0x0a, 1, code, 0x04, 0, 0x04, 0]].concat();
        stream.write_all(&[&[0x30, u8::try_from(result.len()).unwrap()], &result[..]].concat())?;
    }
}

/// Tag and value.
fn element(from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    from.read_exact(&mut head)?;
    let mut length = usize::from(head[1]);
    if length > 0x7f {
        let mut long = [0; 4];
        let bytes = long.get_mut(4 - (length & 0x7f).min(4)..).unwrap();
        from.read_exact(bytes)?;
        length = usize::try_from(u32::from_be_bytes(long)).unwrap();
    }
    let mut value = vec![0; length];
    from.read_exact(&mut value)?;
    Ok((head[0], value))
}
