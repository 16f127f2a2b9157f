//! What must hold of any configuration and of any certificate.

use std::{path::Path, time::Instant};

use super::{
    config::Config,
    files::Files,
    sans,
    yaml::{Document, Node},
};

/// As the file of `--web.config.file`, in a folder where there is no other.
pub(crate) fn config(text: &str) {
    places(text);
    let path = Path::new("/nonexistent/web.yml");
    let read = || Config::parse(text.as_bytes().to_vec(), path, &mut Files::default());
    match (read(), read()) {
        (Ok(config), Ok(again)) => {
            assert!(config.users == again.users && config.headers == again.headers);
            assert_eq!(config.authenticates(), again.authenticates());
            assert!(config.authenticates() || config.users.is_empty());
            // The first request finds all of the burst.
            assert!(config.admits(Instant::now()));
            let mut values = config.headers.values();
            assert!(values.all(|value| !value.is_empty()));
        }
        (Err(error), Err(again)) => {
            assert_eq!(error.to_string(), again.to_string());
            assert!(!error.says.is_empty());
            // Lines are ended by more than one sign.
            let most = text.len() + 1;
            assert!(
                error.line.is_none_or(|line| (1..=most).contains(&line)),
                "{error}"
            );
        }
        (one, other) => assert_eq!(one.is_ok(), other.is_ok()),
    }
}

/// Every key is found in a line of the file.
fn places(text: &str) {
    if let Ok(document) = Document::parse(text.to_owned()) {
        // Each is found by parsing the file again.
        let mut left = 32;
        place(&document, &document.root(), text.len() + 1, &mut left);
    }
}

fn place(document: &Document, node: &Node<'_>, most: usize, left: &mut usize) {
    let key = node.fault("").key;
    let line = document.line(&key);
    assert!(line.is_none_or(|line| line <= most), "{key:?}: {line:?}");
    let entries = node.table().unwrap_or_default().into_iter();
    let below = entries.map(|(_, node)| node);
    for node in below.chain(node.list().unwrap_or_default()) {
        if *left == 0 || key.len() > 8 {
            return;
        }
        *left -= 1;
        place(document, &node, most, left);
    }
}

/// As a certificate's bytes, and as the names in one.
pub(crate) fn certificate(input: &[u8]) {
    let told: usize = sans::of(input).iter().map(String::len).sum();
    // An address in text takes more room than in the certificate.
    assert!(told <= input.len() * 4, "{told}");
    let names: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let text = names.iter().filter_map(|name| str::from_utf8(name).ok());
    assert_eq!(sans::of(&made_out_to(&names)), text.collect::<Vec<_>>());
}

/// The least that is a certificate with these DNS names.
fn made_out_to(names: &[&[u8]]) -> Vec<u8> {
    let names = names
        .iter()
        .flat_map(|name| element(0x82, name))
        .collect::<Vec<_>>();
    let value = element(0x04, &element(0x30, &names));
    let extension = element(0x30, &[element(0x06, &[0x55, 0x1d, 0x11]), value].concat());
    let extensions = element(0xa3, &element(0x30, &extension));
    element(
        0x30,
        &element(0x30, &[element(0x02, &[1]), extensions].concat()),
    )
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let head = match u8::try_from(length) {
        Ok(short) if short < 0x80 => vec![tag, short],
        _ => [&[tag, 0x84][..], &length.to_be_bytes()].concat(),
    };
    [&head, content].concat()
}
