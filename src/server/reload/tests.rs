//! When changed files are due.

use super::*;

/// Files by name, each with a number that stands for its content; 0 is none.
fn files(all: &[(&str, u64)]) -> Look {
    let mark = |content: u64| (content > 0).then_some(Mark { changed: (0, 0), size: content, inode: 1 });
    all.iter().map(|(name, content)| (PathBuf::from(name), mark(*content))).collect()
}

fn due(watch: &mut Watch, looks: &[Look]) -> Vec<bool> {
    looks.iter().map(|now| watch.is_due(now)).collect()
}

#[test]
fn a_change_is_due_once_it_stands_still() {
    let mut watch = Watch::new(files(&[("yaml", 1), ("key", 1)]));
    let [same, half, whole] = [(1, 1), (2, 1), (2, 2)].map(|(yaml, key)| files(&[("yaml", yaml), ("key", key)]));
    assert_eq!(due(&mut watch, &[same.clone(), half, whole.clone(), whole.clone()]), [false, false, false, true]);
    watch.note(whole.clone());
    assert_eq!(due(&mut watch, &[whole.clone(), whole]), [false, false], "once, good or bad");
    assert_eq!(due(&mut watch, &[same.clone(), same]), [false, true], "back again");
}

#[test]
fn what_changes_during_an_attempt_is_due_afterwards() {
    let mut watch = Watch::new(files(&[("yaml", 1)]));
    watch.note(files(&[("yaml", 2), ("key", 1)]));
    let now = files(&[("yaml", 3), ("key", 1)]);
    assert_eq!(due(&mut watch, &[now.clone(), now.clone()]), [false, true]);
    watch.note(now.clone());
    assert_eq!(due(&mut watch, &[now.clone(), now]), [false, false]);
}

#[test]
fn a_file_that_was_missing_is_due_when_it_comes() {
    let mut watch = Watch::new(files(&[("yaml", 1), ("old", 1)]));
    watch.note(files(&[("yaml", 2), ("new", 0)]));
    let (without, with) = (files(&[("yaml", 2), ("new", 0)]), files(&[("yaml", 2), ("new", 7)]));
    assert_eq!(due(&mut watch, &[without.clone(), without, with.clone(), with]), [false, false, false, true]);
}
