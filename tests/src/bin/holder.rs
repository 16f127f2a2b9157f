//! A process that does not close its connections until it is told to.
//!
//! `holder NAME ROLE PORT COUNT [THREAD]` calls itself NAME, waits for a line on standard input
//! and then takes COUNT connections on PORT of the loopback interface, as ROLE says. It prints a
//! line for each step: `listening`, `holding`, and after the next line it reads `closed`. It ends
//! with its standard input. Where a THREAD is named, other threads do all of that, under that
//! name and another.

use std::{
    env, fs,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use socket2::Socket;
use tests::{
    holder::Role,
    place::{Family, Place},
    wait::DEADLINE,
};

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let mut next = |what| arguments.next().with_context(|| format!("no {what}"));
    // The first thread's name is the process's.
    fs::write("/proc/self/comm", next("name")?)?;
    let role: Role = next("role")?.parse()?;
    let (port, count) = (next("port")?.parse()?, next("count")?.parse()?);
    let thread = arguments.next();
    order()?;
    on(thread.as_deref(), || match role {
        Role::Client => {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let connections = (0..count).map(|_| Ok(TcpStream::connect(address)?));
            let connections = connections.collect::<Result<Vec<_>>>()?;
            println!("holding");
            order()?;
            drop(connections);
            println!("closed");
            Ok(())
        }
        Role::Server(reads) => serve(&listen(port)?, reads, count, thread.as_deref()),
        Role::Hung => {
            let listener = listen(port)?;
            println!("holding");
            order()?;
            drop(listener);
            println!("closed");
            Ok(())
        }
    })?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn listen(port: u16) -> Result<Socket> {
    let family = Family::V4;
    let listener = Place { family, port }.listen()?;
    // Peers that never come shall not keep it.
    listener.set_read_timeout(Some(DEADLINE))?;
    println!("listening");
    Ok(listener)
}

/// Accepts on this thread, and has the rest done by another where that has a name.
fn serve(listener: &Socket, reads: bool, count: usize, thread: Option<&str>) -> Result<()> {
    let connections = (0..count).map(|_| Ok(listener.accept()?.0));
    let mut connections: Vec<Socket> = connections.collect::<Result<_>>()?;
    let reader = thread.map(|name| format!("{name}-1"));
    on(reader.as_deref(), || {
        if reads {
            for connection in &mut connections {
                connection.set_read_timeout(Some(DEADLINE))?;
                connection.read_to_end(&mut Vec::new())?;
            }
        }
        println!("holding");
        order()?;
        drop(connections);
        println!("closed");
        Ok(())
    })
}

/// Works on a thread of this name, or on this one where there is none.
fn on(name: Option<&str>, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let Some(name) = name else {
        return work();
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned());
        let ended = thread.spawn_scoped(scope, work)?.join();
        ended.unwrap_or_else(|_| Err(anyhow!("{name} panicked")))
    })
}

/// Waits for the next line.
fn order() -> Result<()> {
    let bytes = io::stdin().read_line(&mut String::new())?;
    ensure!(bytes > 0, "nobody waits for this process any more");
    Ok(())
}
