//! The names of the programs that a command starts, as far as its text tells: what a shell would see in the place of a command.
//!
//! `true&&dnf`, `/usr/bin/dnf`, `sudo -n dnf`, `if dnf …`, `$(dnf …)`, `sh -c "dnf …"` and `find -exec dnf` start dnf; `echo dnf` and `# dnf` do not. What
//! only running would tell (`$PM install`, a script in the image) is not found. POSIX shell, chapter 2, and what bash adds to its grammar.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// Texts within texts (`sh -c`, `$(…)`) are followed so deep; nobody writes deeper ones.
const DEEPEST: usize = 16;

/// Programs that start what follows on their command line: name, options that take a value, words before the command.
const STARTERS: &[(&str, &str, usize)] = &[
    ("builtin", "", 0),
    ("busybox", "", 0),
    ("chronic", "", 0),
    ("command", "", 0),
    ("doas", "Cu", 0),
    ("eatmydata", "", 0),
    ("env", "CSu", 0),
    ("exec", "a", 0),
    ("flock", "Ew", 1),
    ("ionice", "cn", 0),
    ("linux32", "", 0),
    ("linux64", "", 0),
    ("nice", "n", 0),
    ("nohup", "", 0),
    ("setarch", "", 1),
    ("setsid", "", 0),
    ("stdbuf", "eio", 0),
    ("sudo", "CDghpRrTtUu", 0),
    ("time", "fo", 0),
    ("timeout", "ks", 1),
    ("unbuffer", "", 0),
    ("xargs", "EILPadns", 0),
];

/// Programs that take a text for a shell after `-c`.
const SHELLS: &[&str] = &["ash", "bash", "dash", "ksh", "mksh", "rbash", "runuser", "sh", "su", "zsh"];

/// Words after which a command stands.
const RESERVED: &[&str] = &["!", "do", "elif", "else", "if", "then", "until", "while", "{"];

/// A path's last component.
pub fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// The programs that a command given as words starts.
pub fn of_command(argv: &[String]) -> BTreeSet<String> {
    let mut found = Found { names: BTreeSet::new(), depth: 0 };
    found.command(argv);
    found.names
}

/// The programs that a text starts, if its first line says that it is a shell's.
pub fn of_script(text: &str) -> BTreeSet<String> {
    let mut found = Found { names: BTreeSet::new(), depth: 0 };
    let first = text.lines().next().unwrap_or_default();
    let mut interpreter =
        first.trim_start_matches("#!").split_whitespace().map(base_name).skip_while(|word| *word == "env" || word.starts_with('-'));
    if interpreter.next().is_some_and(|name| SHELLS.contains(&name)) {
        found.script(text);
    }
    found.names
}

struct Found {
    names: BTreeSet<String>,
    depth: usize,
}

impl Found {
    /// One simple command: its program, and what that starts in turn.
    fn command(&mut self, words: &[String]) {
        let mut words = words;
        while let Some((program, arguments)) = words.split_first() {
            let name = base_name(program);
            self.names.insert(name.to_owned());
            if SHELLS.contains(&name) {
                return shell_text(arguments).map_or((), |text| self.script(text));
            }
            match name {
                "eval" => return self.script(&arguments.join(" ")),
                "trap" => return arguments.first().map_or((), |text| self.script(text)),
                "find" => return self.find(arguments),
                _ => {}
            }
            let Some((_, valued, skipped)) = STARTERS.iter().find(|(starter, ..)| *starter == name) else { return };
            words = operands(arguments, valued).get(*skipped..).unwrap_or_default();
        }
    }

    /// What `-exec` starts, and a find in that in turn.
    fn find(&mut self, arguments: &[String]) {
        let starts = |word: &String| matches!(word.as_str(), "-exec" | "-execdir" | "-ok" | "-okdir");
        for command in arguments.split(starts).skip(1) {
            self.command(command);
        }
    }

    /// A text as a shell reads it.
    fn script(&mut self, text: &str) {
        if self.depth == DEEPEST {
            return;
        }
        self.depth += 1;
        let mut reader = Reader::new(text, 0);
        let mut words: Vec<String> = Vec::new();
        loop {
            match reader.token() {
                // Assignments and reserved words leave the next word a command.
                Some(Token::Word(word)) if words.is_empty() && (RESERVED.contains(&word.as_str()) || is_assignment(&word)) => {}
                Some(Token::Word(word)) => words.push(word),
                Some(Token::Body(body)) if words.iter().any(|word| SHELLS.contains(&base_name(word))) => self.script(&body),
                Some(Token::Body(_)) => {}
                Some(Token::End) => self.command(&std::mem::take(&mut words)),
                None => break self.command(&words),
            }
        }
        for text in std::mem::take(&mut reader.nested) {
            self.script(&text);
        }
        self.depth -= 1;
    }
}

/// What follows the options.
fn operands<'a>(arguments: &'a [String], valued: &str) -> &'a [String] {
    let mut at = 0;
    while let Some(word) = arguments.get(at) {
        if word == "--" {
            return &arguments[at + 1..];
        }
        if !is_assignment(word) && !word.starts_with('-') {
            break;
        }
        // `-u root`, but not `-uroot` and `--user=root`.
        let takes_next = word.len() == 2 && word.starts_with('-') && word.ends_with(|c| valued.contains(c));
        at += if takes_next { 2 } else { 1 };
    }
    arguments.get(at..).unwrap_or_default()
}

/// The text after `-c`: the first word that is no option, as in `sh -eo pipefail -c text`, or the next one, as in `su user -c text`.
fn shell_text(arguments: &[String]) -> Option<&str> {
    let mut words = arguments.iter().map(String::as_str);
    let mut asked = false;
    while let Some(word) = words.next() {
        match word {
            "--command" => return words.next(),
            _ if word.starts_with("--") => {}
            _ if word.len() > 1 && word.starts_with(['-', '+']) => {
                asked |= word.contains('c');
                // `-o pipefail`
                if word.ends_with(['o', 'O']) {
                    words.next();
                }
            }
            _ if asked => return Some(word),
            _ => {}
        }
    }
    None
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name.trim_end_matches('+'));
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    /// What ends a command.
    End,
    /// The text of a here-document of the command just read.
    Body(String),
}

/// Reads a text in tokens.
struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    /// Texts of substitutions, to be read by themselves.
    nested: Vec<String>,
    /// Ends of here-documents whose text begins on the next line, and whether tabs before it are dropped.
    bodies: Vec<(String, Tabs)>,
    depth: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Tabs {
    Kept,
    Dropped,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, depth: usize) -> Self {
        Self { rest: text.chars().peekable(), nested: Vec::new(), bodies: Vec::new(), depth }
    }

    fn token(&mut self) -> Option<Token> {
        loop {
            match *self.rest.peek()? {
                '\n' if !self.bodies.is_empty() => return Some(self.body()),
                '\n' | ';' | '&' | '|' | '(' | ')' => {
                    self.rest.next();
                    return Some(Token::End);
                }
                c if c.is_whitespace() => drop(self.rest.next()),
                '#' => while self.rest.next_if(|c| *c != '\n').is_some() {},
                '<' | '>' => self.redirection(),
                _ => {
                    let word = self.word();
                    // A number before a redirection belongs to it.
                    if !(self.rest.peek().is_some_and(|c| matches!(c, '<' | '>')) && word.chars().all(|c| c.is_ascii_digit())) {
                        return Some(Token::Word(word));
                    }
                }
            }
        }
    }

    /// A redirection with its target, which is no argument.
    fn redirection(&mut self) {
        let mut operator = String::new();
        while let Some(c) = self.rest.next_if(|c| matches!(c, '<' | '>' | '&' | '|')) {
            operator.push(c);
        }
        if matches!(operator.as_str(), "<" | ">") && self.rest.peek() == Some(&'(') {
            // Process substitution: its text is read as commands.
            return;
        }
        let mut tabs = Tabs::Kept;
        if operator == "<<" && self.rest.next_if_eq(&'-').is_some() {
            tabs = Tabs::Dropped;
        }
        while self.rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        let target = self.word();
        if operator == "<<" {
            self.bodies.push((target, tabs));
        }
    }

    /// The text of the first here-document, from the line's end to the line that ends it, whose own end is left to be read.
    fn body(&mut self) -> Token {
        let (end, tabs) = self.bodies.remove(0);
        let mut text = String::new();
        while self.rest.next().is_some() {
            let mut line = String::new();
            while let Some(c) = self.rest.next_if(|c| *c != '\n') {
                line.push(c);
            }
            let line = if tabs == Tabs::Dropped { line.trim_start_matches('\t') } else { &line };
            if line == end {
                break;
            }
            text.push_str(line);
            text.push('\n');
        }
        Token::Body(text)
    }

    /// A word without its quotes; substitutions are put aside.
    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(&c) = self.rest.peek() {
            if c.is_whitespace() || matches!(c, ';' | '&' | '|' | '(' | ')' | '<' | '>') {
                break;
            }
            self.rest.next();
            match c {
                '\'' => {
                    while let Some(c) = self.rest.next().filter(|c| *c != '\'') {
                        word.push(c);
                    }
                }
                '"' => self.double_quoted(&mut word),
                '\\' => match self.rest.next() {
                    Some('\n') | None => {}
                    Some(c) => word.push(c),
                },
                '$' | '`' => self.substitution(c, &mut word),
                c => word.push(c),
            }
        }
        word
    }

    fn double_quoted(&mut self, word: &mut String) {
        while let Some(c) = self.rest.next() {
            match c {
                '"' => return,
                '\\' => match self.rest.next() {
                    Some('\n') | None => {}
                    Some(c) => {
                        if !matches!(c, '"' | '\\' | '$' | '`') {
                            word.push('\\');
                        }
                        word.push(c);
                    }
                },
                '$' | '`' => self.substitution(c, word),
                c => word.push(c),
            }
        }
    }

    /// What follows a `$` or a backquote that was just read.
    fn substitution(&mut self, sign: char, word: &mut String) {
        if sign == '`' {
            let mut text = String::new();
            while let Some(c) = self.rest.next().filter(|c| *c != '`') {
                text.push(if c == '\\' { self.rest.next().unwrap_or(c) } else { c });
            }
            return self.nested.push(text);
        }
        word.push('$');
        let close = match self.rest.peek() {
            Some('(') => ')',
            Some('{') => '}',
            _ => return,
        };
        let open = self.rest.next().unwrap_or_default();
        let (mut depth, mut text, mut quote) = (1, String::new(), None);
        while let Some(c) = self.rest.next() {
            match (quote, c) {
                (_, '\\') => {
                    text.push(c);
                    text.extend(self.rest.next());
                    continue;
                }
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, c) if c == open => depth += 1,
                (None, c) if c == close => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            text.push(c);
        }
        // `${x:-$(dnf)}` holds commands only in what is substituted in turn, `$((1 + 1))` none.
        if close == ')' && !text.starts_with('(') {
            self.nested.push(text);
        } else if self.depth < DEEPEST {
            let mut inner = Reader::new(&text, self.depth + 1);
            let mut ignored = String::new();
            while let Some(c) = inner.rest.next() {
                if matches!(c, '$' | '`') {
                    inner.substitution(c, &mut ignored);
                }
            }
            self.nested.append(&mut inner.nested);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(argv: &[&str]) -> String {
        let argv: Vec<String> = argv.iter().map(|&word| word.into()).collect();
        of_command(&argv).into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn shell_texts() {
        for (text, expected) in [
            ("apt-get install x", "apt-get"),
            ("true&&dnf install x", "dnf true"),
            ("true;dnf|tee x&apk add y\nrpm -i z", "apk dnf rpm tee true"),
            ("echo dnf", "echo"),
            ("echo 'a && dnf' \"b; dnf\"", "echo"),
            ("echo a # && dnf", "echo"),
            ("echo a#b && dnf", "dnf echo"),
            ("/usr/bin/dnf -y install x", "dnf"),
            ("'apt-get' update", "apt-get"),
            ("\\apt-get update", "apt-get"),
            ("DEBIAN_FRONTEND=noninteractive apt-get update", "apt-get"),
            ("A=1 B='x y' env -u C D=2 apt-get update", "apt-get env"),
            ("sudo -n -u root apt-get update", "apt-get sudo"),
            ("sudo -E -- apt-get update", "apt-get sudo"),
            ("timeout -k 5 60 apt-get update", "apt-get timeout"),
            ("nice -n 19 ionice -c3 apt-get update", "apt-get ionice nice"),
            ("xargs -r -n 1 apt-get install <list", "apt-get xargs"),
            ("cat list | xargs apt-get install -y", "apt-get cat xargs"),
            ("exec apt-get update", "apt-get exec"),
            ("command -v dnf || yum install x", "command dnf yum"),
            ("if ! dnf install x; then yum install x; else :; fi", ": dnf fi yum"),
            ("for pm in apt dnf; do echo $pm; done", "done echo for"),
            ("while read p; do apk add $p; done <list", "apk done read"),
            ("case $a in amd64) dnf install x ;; *) yum install y ;; esac", "* case dnf esac yum"),
            ("(cd /tmp && dnf install x)", "cd dnf"),
            ("{ dnf install x; }", "dnf }"),
            ("f() { dnf install x; }; f", "dnf f }"),
            ("x=$(dnf list)", "dnf"),
            ("echo \"`rpm -qa` $(apk info)\"", "apk echo rpm"),
            ("echo $((1 + 1)) ${x:-dnf} ${y:-$(dnf list)}", "dnf echo"),
            ("echo \"${a}\" '$(dnf list)'", "echo"),
            ("sh -c 'apt-get update'", "apt-get sh"),
            ("su -c \"bash -c 'dnf install x'\"", "bash dnf su"),
            ("su root -c 'dnf install x'", "dnf su"),
            ("eval \"apt-get update\"", "apt-get eval"),
            ("trap 'rm -f x' EXIT; ls", "ls rm trap"),
            ("find / -name x -exec chown 1 {} + -exec rm {} ';'", "chown find rm"),
            ("time dnf install x", "dnf time"),
            ("apt-get update 2>&1 >/dev/null <x && true", "apt-get true"),
            (">log apt-get update", "apt-get"),
            ("2>log apt-get update", "apt-get"),
            ("diff <(rpm -qa) x", "diff rpm x"),
            ("cat <<E >f\ndnf install x\nE\napk add y", "apk cat"),
            ("cat <<-'E'\n\tdnf\n\tE\napk add y", "apk cat"),
            ("cat <<A <<B\ndnf\nA\nyum\nB\napk add", "apk cat"),
            ("bash <<E\ndnf install x\nE", "bash dnf"),
            ("cat <<E\nnever ended", "cat"),
            ("apt-get \\\n install x", "apt-get"),
            ("set -eux\napt-get update\n", "apt-get set"),
            ("$PM install x", "$PM"),
            ("echo 'never ended && dnf", "echo"),
            ("", ""),
        ] {
            let expected = if expected.is_empty() { "sh".to_owned() } else { format!("{expected} sh") };
            let expected = expected.split(' ').collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ");
            assert_eq!(names(&["/bin/sh", "-c", text]), expected, "{text:?}");
        }
    }

    #[test]
    fn words() {
        for (argv, expected) in [
            (&["apt-get", "install", "x"][..], "apt-get"),
            (&["/usr/bin/apt-get", "install", "x"], "apt-get"),
            (&["echo", "apt-get; dnf"], "echo"),
            (&["/bin/bash", "-o", "pipefail", "-c", "dnf install x"], "bash dnf"),
            (&["/bin/bash", "-euxo", "pipefail", "-c", "dnf install x"], "bash dnf"),
            (&["bash", "-ec", "dnf install x"], "bash dnf"),
            (&["bash", "--login", "-c", "dnf install x"], "bash dnf"),
            (&["bash", "script.sh", "dnf"], "bash"),
            (&["env", "A=1", "dnf", "install"], "dnf env"),
            (&["python3", "-c", "import dnf"], "python3"),
            (&[], ""),
        ] {
            assert_eq!(names(argv), expected, "{argv:?}");
        }
    }

    #[test]
    fn scripts() {
        for (text, expected) in [
            ("#!/bin/sh\nset -e\napk add x\n", "apk set"),
            ("#!/usr/bin/env -S bash -e\ndnf install x\n", "dnf"),
            ("#!/usr/bin/python3\ndnf = 1\n", ""),
        ] {
            assert_eq!(of_script(text).into_iter().collect::<Vec<_>>().join(" "), expected, "{text:?}");
        }
    }

    #[test]
    fn hostile_texts_end() {
        for unit in ["$(", "`", "\"$(", "sh -c '", "<<A\n", "${", "(", "<", "eval ", "find -exec "] {
            let text = unit.repeat(3000);
            let _ = names(&["sh", "-c", &text]);
        }
    }
}
