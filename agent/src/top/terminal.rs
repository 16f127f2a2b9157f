//! The terminal: taken at the beginning, given back at every end.

use std::{
    io::{self, BufWriter, IsTerminal as _, Stdout, Write as _},
    panic,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor,
        event::{self, Event, KeyEvent},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::{
    SigId,
    consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH},
    flag, low_level,
};

/// Whether the terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What another thread said as it panicked: told once the terminal is given back.
static PANICKED: Mutex<Option<String>> = Mutex::new(None);

/// The terminal in raw mode, on its alternate screen. Dropping it gives it back.
pub(super) struct Tty {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    inputs: Receiver<KeyEvent>,
    ended: Arc<AtomicBool>,
    resized: Arc<AtomicBool>,
    signals: Vec<SigId>,
}

/// What came from the terminal.
pub(super) enum Input {
    /// A key.
    Key(KeyEvent),
    /// Nothing in time.
    Nothing,
    /// The terminal is closed.
    Gone,
}

impl Tty {
    /// Takes it.
    pub(super) fn enter() -> Result<Self> {
        ensure!(
            io::stdin().is_terminal() && io::stdout().is_terminal(),
            "top needs a terminal to draw on and to read keys from: for a program or a file, use \
             `agent snapshot`"
        );
        let (ended, resized) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let mut signals = Vec::new();
        for (signal, flag) in [
            (SIGINT, &ended),
            (SIGTERM, &ended),
            (SIGHUP, &ended),
            (SIGWINCH, &resized),
        ] {
            let id = flag::register(signal, Arc::clone(flag)).context("cannot handle signals")?;
            signals.push(id);
        }
        give_back_on_panic();
        TAKEN.store(true, Ordering::SeqCst);
        // From here on, whatever fails gives back what was taken.
        let taken = (|| {
            enable_raw_mode()?;
            execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
            Terminal::new(CrosstermBackend::new(BufWriter::new(io::stdout())))
        })();
        let terminal = taken
            .inspect_err(|_| give_back())
            .context("the terminal cannot be drawn on")?;
        let (keys, inputs) = channel();
        thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || read_keys(&keys))
            .inspect_err(|_| give_back())
            .context("no thread to read keys")?;
        Ok(Self {
            terminal,
            inputs,
            ended,
            resized,
            signals,
        })
    }

    /// Whether a signal asked for the end.
    pub(super) fn ends(&self) -> Result<bool> {
        let panicked = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(panic) = &*panicked {
            bail!("a part of top failed, which is a bug: {panic}");
        }
        Ok(self.ended.load(Ordering::SeqCst))
    }

    /// Whether its size has changed since this was asked last.
    pub(super) fn resized(&self) -> bool {
        self.resized.swap(false, Ordering::SeqCst)
    }

    /// Draws.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<()> {
        self.terminal
            .draw(draw)
            .context("the terminal cannot be drawn on")?;
        Ok(())
    }

    /// The next key, if one comes in time.
    pub(super) fn input(&self, patience: Duration) -> Input {
        match self.inputs.recv_timeout(patience) {
            Ok(key) => Input::Key(key),
            Err(RecvTimeoutError::Timeout) => Input::Nothing,
            Err(RecvTimeoutError::Disconnected) => Input::Gone,
        }
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        give_back();
        for signal in self.signals.drain(..) {
            low_level::unregister(signal);
        }
    }
}

/// Reads keys until the terminal is closed. crossterm reads the end of a closed one again and
/// again without a pause, so that it is asked only where there is something to read; the process
/// ends by its signal or by the next drawing where the terminal goes in between.
fn read_keys(keys: &Sender<KeyEvent>) {
    loop {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        let over = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        if fds[0].revents().intersects(over) {
            return;
        }
        let mut idle = true;
        while let Ok(true) = event::poll(Duration::ZERO) {
            idle = false;
            match event::read() {
                Ok(Event::Key(key)) if keys.send(key).is_err() => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        if idle {
            // Of more than it reads at once, crossterm is told of the rest with the next key.
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Gives the terminal back, once.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // It may be gone: then there is nothing to mend.
        let _gone = disable_raw_mode();
        let mut stdout = io::stdout();
        let _gone = execute!(stdout, LeaveAlternateScreen, cursor::Show);
        let _gone = stdout.flush();
    }
}

/// Sees to it that a panic is told on the terminal as it was before. A panic of another thread
/// ends the view, which then tells it.
fn give_back_on_panic() {
    let drawing = thread::current().id();
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if TAKEN.load(Ordering::SeqCst) && thread::current().id() != drawing {
            let mut panicked = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
            *panicked = Some(panic.to_string());
        } else {
            give_back();
            before(panic);
        }
    }));
}
