use super::*;

const HASH: &str = "$2y$04$mA4kDf1YEohxG7szHhrgye2KFtpes.3r1Nr4/BsPHJjRKs8/iGdR6";

fn read(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let path = folder.path().join("web.yml");
    std::fs::write(&path, text).unwrap();
    Config::read(&path)
}

#[test]
fn an_empty_file_asks_for_nothing() {
    for text in [
        "",
        "# nothing\n",
        "{}",
        "tls_server_config:\nbasic_auth_users: {}\n",
        "tls_server_config: {cert_file: ''}\nhttp_server_config: {http2: true, headers: }\n",
    ] {
        let config = read(text).unwrap();
        assert!(config.tls.is_none() && config.headers.is_empty(), "{text}");
        assert!(!config.authenticates(), "{text}");
        assert!(config.admits(Instant::now()), "{text}");
    }
}

#[test]
fn users_headers_and_a_rate_are_read() {
    let config = read(&format!(
        "basic_auth_users:\n  alice: {HASH}\n  42: '{HASH}'\nhttp_server_config:\n  headers:\n    \
         X-Frame-Options: deny\n    X-XSS-Protection: 0\n    X-Content-Type-Options: nosniff\n    \
         Content-Security-Policy: default-src 'self'\n    \
         Strict-Transport-Security: max-age=31536000\nrate_limit:\n  interval: 1h\n  burst: 2\n"
    ))
    .unwrap();
    assert!(config.authenticates());
    assert_eq!(config.users.hash(b"alice"), (HASH, true));
    assert_eq!(config.users.hash(b"42"), (HASH, true));
    let (stand_in, known) = config.users.hash(b"mallory");
    assert!(!known && stand_in.starts_with("$2b$04$"), "{stand_in}");
    assert_eq!(config.headers.len(), 5);
    assert_eq!(config.headers["x-xss-protection"], "0");
    let passed = [(); 3].map(|()| config.admits(Instant::now()));
    assert_eq!(passed, [true, true, false]);
}

/// Text, line, key, and what the error says.
const MISTAKES: &[(&str, usize, &str, &str)] = &[
    (
        "tls_server_confg:\n",
        1,
        "tls_server_confg",
        "known here: tls_server_config,",
    ),
    ("a: b: c\n", 1, "", "this is no YAML"),
    ("- a\n", 1, "", "a table is wanted"),
    (
        "basic_auth_users: {}\n\nbasic_auth_users: {}\n",
        1,
        "",
        "duplicate entry",
    ),
    (
        "\ntls_server_config: yes please\n",
        2,
        "tls_server_config",
        "a table is wanted",
    ),
    (
        "tls_server_config:\n  min_version: TLS13\n",
        1,
        "tls_server_config",
        "write cert_file",
    ),
    (
        "tls_server_config:\n  cert_file: a\n  certfile: b\n",
        3,
        "tls_server_config.certfile",
        "no such key",
    ),
    (
        "tls_server_config:\n  cert_file: absent.pem\n",
        2,
        "tls_server_config.cert_file",
        "absent.pem: No such file",
    ),
    (
        "tls_server_config:\n  cert_file: .\n",
        2,
        "tls_server_config.cert_file",
        "not a regular file",
    ),
    (
        "tls_server_config:\n  key_file: b\n  cert_file: empty.pem\n",
        3,
        "tls_server_config.cert_file",
        "no certificate in PEM",
    ),
    (
        "tls_server_config:\n  cert_file: a\n  cert: b\n",
        2,
        "tls_server_config.cert_file",
        "both cert and cert_file",
    ),
    (
        "tls_server_config:\n  cert_file: [a]\n",
        2,
        "tls_server_config.cert_file",
        "a text is wanted",
    ),
    (
        "tls_server_config:\n  min_version: TLS10\n",
        2,
        "tls_server_config.min_version",
        "TLS10 is refused: rustls",
    ),
    (
        "tls_server_config:\n  max_version: SSL30\n",
        2,
        "tls_server_config.max_version",
        "write TLS12 or TLS13",
    ),
    (
        "tls_server_config:\n  min_version: TLS13\n  max_version: TLS12\n",
        3,
        "tls_server_config.max_version",
        "older than min_version",
    ),
    (
        "tls_server_config:\n  cipher_suites:\n  - TLS_AES_128_GCM_SHA256\n  - TLS_RSA_WITH_AES_128_GCM_SHA256\n",
        4,
        "tls_server_config.cipher_suites.1",
        "no suite with an RSA key exchange",
    ),
    (
        "tls_server_config:\n  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]\n",
        2,
        "tls_server_config.cipher_suites.0",
        "no suite with CBC",
    ),
    (
        "tls_server_config:\n  cipher_suites: [FOO]\n",
        2,
        "tls_server_config.cipher_suites.0",
        "there are TLS_AES_128",
    ),
    (
        "tls_server_config:\n  cipher_suites: FOO\n",
        2,
        "tls_server_config.cipher_suites",
        "a list is wanted",
    ),
    (
        "tls_server_config:\n  max_version: TLS12\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n",
        3,
        "tls_server_config.cipher_suites",
        "none of these is for TLS 1.2",
    ),
    (
        "tls_server_config:\n  curve_preferences:\n    - X25519\n    - CurveP521\n",
        4,
        "tls_server_config.curve_preferences.1",
        "write some of X25519, CurveP256, CurveP384",
    ),
    (
        "tls_server_config:\n  client_auth_type: RequestClientCert\n",
        2,
        "tls_server_config.client_auth_type",
        "protects nothing",
    ),
    (
        "tls_server_config:\n  client_auth_type: RequireAnyClientCert\n",
        2,
        "tls_server_config.client_auth_type",
        "protects nothing",
    ),
    (
        "tls_server_config:\n  client_auth_type: Verify\n",
        2,
        "tls_server_config.client_auth_type",
        "write NoClientCert, ",
    ),
    (
        "tls_server_config:\n  client_auth_type: RequireAndVerifyClientCert\n",
        2,
        "tls_server_config.client_auth_type",
        "write client_ca_file",
    ),
    (
        "tls_server_config:\n  client_ca: x\n",
        2,
        "tls_server_config.client_ca",
        "write client_auth_type",
    ),
    (
        "tls_server_config:\n  client_allowed_sans: [a]\n",
        2,
        "tls_server_config.client_allowed_sans",
        "write client_auth_type",
    ),
    (
        "http_server_config:\n  http2: maybe\n",
        2,
        "http_server_config.http2",
        "write true or false",
    ),
    (
        "http_server_config:\n  headers:\n    Server: me\n",
        3,
        "http_server_config.headers.Server",
        "known here: Content-Security-Policy",
    ),
    (
        "http_server_config:\n  headers:\n    X-Frame-Options: DENY\n",
        3,
        "http_server_config.headers.X-Frame-Options",
        "write deny or sameorigin",
    ),
    (
        "http_server_config:\n  headers:\n    X-XSS-Protection: \"a\\nb\"\n",
        3,
        "http_server_config.headers.X-XSS-Protection",
        "one line",
    ),
    (
        "basic_auth_users:\n  alice: secret\n",
        2,
        "basic_auth_users.alice",
        "no bcrypt hash",
    ),
    (
        "basic_auth_users:\n  alice: [secret]\n",
        2,
        "basic_auth_users.alice",
        "a text is wanted",
    ),
    (
        "basic_auth_users:\n  alice:secret\n",
        1,
        "basic_auth_users",
        "write `key: value` lines",
    ),
    (
        "basic_auth_users:\n  alice: $2y$31$mA4kDf1YEohxG7szHhrgye2KFtpes.3r1Nr4/BsPHJjRKs8/iGdR6\n",
        2,
        "basic_auth_users.alice",
        "cost 31 is refused",
    ),
    (
        "basic_auth_users:\n  a:b: $2y$04$mA4kDf1YEohxG7szHhrgye2KFtpes.3r1Nr4/BsPHJjRKs8/iGdR6\n",
        2,
        "basic_auth_users.a:b",
        "colon",
    ),
    (
        "rate_limit:\n  interval: fast\n",
        2,
        "rate_limit.interval",
        "as in 100ms or 1s",
    ),
    (
        "rate_limit:\n  interval: 1s\n",
        1,
        "rate_limit",
        "write burst: 1 or more",
    ),
    (
        "rate_limit:\n  interval: 1s\n  burst: -1\n",
        3,
        "rate_limit.burst",
        "a whole number",
    ),
];

#[test]
fn every_mistake_is_told_with_line_key_and_remedy() {
    for (text, line, key, part) in MISTAKES {
        let error = read(text).unwrap_err();
        let shown = error.to_string();
        eprintln!("{}", shown.rsplit('/').next().unwrap_or_default());
        // The nearest place that holds a key that is missing may be the line below its name.
        assert!(
            error
                .line
                .is_some_and(|found| found == *line || error.key.is_empty()),
            "{text}{shown}"
        );
        assert_eq!(error.key, *key, "{text}{shown}");
        assert!(error.says.contains(part), "{text}{shown}");
        assert!(shown.contains("web.yml:"), "{shown}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::read(Path::new("/nonexistent/web.yml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nonexistent/web.yml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn no_error_quotes_a_secret() {
    for text in [
        "basic_auth_users:\n  alice: hunter2\n",
        "basic_auth_users: hunter2\n",
        "basic_auth_users:\n- hunter2\n",
        "basic_auth_users:\n  alice:hunter2\n",
        "basic_auth_users:\n  alice: {hunter2: 1}\n",
        "tls_server_config:\n  cert: hunter2\n  key: hunter2\n",
        "tls_server_config:\n  key: [hunter2]\n",
        "tls_server_config:\n  key: |\n    hunter2\n   bad\n",
        "tls_server_config: |\n  hunter2\n",
    ] {
        let error = read(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let config = read(&format!("basic_auth_users:\n  alice: {HASH}\n")).unwrap();
    assert!(!format!("{config:?}").contains("$2y"), "{config:?}");
}
