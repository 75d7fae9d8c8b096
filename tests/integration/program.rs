//! Another program as a child process: started, listened to with a limit, never left behind.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread::{self, JoinHandle},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::LIMIT;

/// A running program.
pub(crate) struct Program {
    /// Its command line, for when it fails.
    what: String,
    child: Child,
    /// Its output line by line; then the end.
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
    errors: File,
}

impl Program {
    /// Starts it with lines on its standard input.
    pub(crate) fn start(mut command: Command, input: &[String]) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let what = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        // A file takes any amount of input without waiting for the program to read it.
        let mut stdin = tempfile::tempfile().unwrap();
        for line in input {
            writeln!(stdin, "{line}").unwrap();
        }
        stdin.rewind().unwrap();
        let errors = tempfile::tempfile().unwrap();
        command.stdin(stdin).stdout(Stdio::piped()).stderr(errors.try_clone().unwrap());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}; tests/run.sh installs what the tests need"));
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = sync_channel(64);
        let reader = thread::spawn(move || {
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
                if sender.send(text).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Self { what, child, lines, reader: Some(reader), errors }
    }

    /// Its next line.
    pub(crate) fn next_line(&self) -> String {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => line,
            Err(why) => panic!("{}: no further line: {why}\n{}", self.what, self.complaints()),
        }
    }

    /// All lines that are left, when it has ended well.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let (lines, status) = self.run_to_its_end();
        assert!(
            status.success(),
            "{}: {status} after {} lines\n{}",
            self.what,
            lines.len(),
            self.complaints()
        );
        lines
    }

    /// Whether it ends well.
    pub(crate) fn ends_well(mut self) -> bool {
        self.run_to_its_end().1.success()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).unwrap();
    }

    fn run_to_its_end(&mut self) -> (Vec<String>, ExitStatus) {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => lines.push(line),
                // Its standard output closes with it.
                Err(RecvTimeoutError::Disconnected) => return (lines, self.child.wait().unwrap()),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: silent after {} lines\n{}", self.what, lines.len(), self.complaints())
                }
            }
        }
    }

    fn complaints(&self) -> String {
        let mut text = String::new();
        let mut file = &self.errors;
        // What cannot be read is only missing from a message about something worse.
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
        text
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Nobody takes lines any more: the reader is drained, or it would wait for room for ever.
        while self.lines.recv().is_ok() {}
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
