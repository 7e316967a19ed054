//! A certificate for localhost, and the authority that signed it, made with the openssl command.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

pub struct Certificates {
    _folder: tempfile::TempDir,
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// An authority of its own, and a certificate for localhost.
pub fn certificates() -> Certificates {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let openssl = |args: &[&str]| {
        let done =
            Command::new("openssl").args(args).current_dir(folder.path()).output().expect("openssl is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = ["req", "-x509", "-subj", "/CN=test authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(&[&ca[..], &new_key[..]].concat());
    openssl(
        &[&["req", "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "request.pem"][..], &new_key[..]].concat(),
    );
    fs::write(at("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "request.pem",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "names",
        "-out",
        "cert.pem",
    ]);
    Certificates { ca: at("ca.pem"), cert: at("cert.pem"), key: at("key.pem"), _folder: folder }
}
