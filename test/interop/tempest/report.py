#!/usr/bin/python3
"""report.py STREAM DIRECTORY SECONDS CONCURRENCY PEER [EXPECTED]: reads a subunit stream, prints totals, what failed
and what was skipped, and writes

tests.txt       one line a test: outcome, seconds, id, and why it was skipped
failures.txt    one line a failure: id, reason
tracebacks.txt  all that a failure left

PEER has the seconds that each test takes with Neutron. EXPECTED is for a whole run: how many tests must pass, and which
ones may be skipped.

The exit status is 1 when a test failed, none passed, or EXPECTED is missed."""
import os
import re
import sys

import subunit
import testtools

WORDS = {'success': 'PASS', 'xfail': 'PASS', 'skip': 'SKIP'}


def reason(text):
    """The last line of a traceback that names an exception."""
    lines = [line for line in text.splitlines() if re.match(r'^[A-Za-z_][\w.]*(Error|Exception|Mismatch|Failure|[a-z])\b.*:', line)
             and not line.startswith(('Body', 'Details', 'Traceback', 'Captured'))]
    found = lines[-1] if lines else (text.strip().splitlines() or ['no reason given'])[-1]
    after = text.split(found, 1)[-1].strip().splitlines()
    details = next((line for line in after if line.startswith('Details')), '')
    return ' '.join((found + ' ' + details).split())[:400]


PREFIX = 'neutron_tempest_plugin.api.'


def plain(name):
    """The name of a test or class without attributes and what all names have in common."""
    name = re.sub(r'\[[^]]*\]', '', name)
    name = re.sub(r'^\w+Class \((.*)\)$', r'\1', name)
    return name.removeprefix(PREFIX)


def compare(tests, seconds, concurrency, path):
    """Prints what the tests take with Neutron, beside what they took here."""
    with open(path) as f:
        lines = f.read().splitlines()
    about = dict(line[2:].split() for line in lines if re.match(r'# \w+ \d+$', line))
    peer = {name: float(took) for took, name in (line.split() for line in lines if not line.startswith('#'))}
    both = [(took, peer[plain(name)]) for name, (word, took, _) in tests.items() if word == 'PASS' and plain(name) in peer]
    if not both:
        return
    print('%d of them pass with Neutron (Zed) too; without what classes set up first, they add up to %.0f s here, at concurrency %s, and %.0f s with Neutron, at concurrency %s' % (
        len(both), sum(b[0] for b in both), concurrency, sum(b[1] for b in both), about['concurrency']))
    if len(both) >= 0.95 * len(peer):
        print('all %d of Neutron took %s s of wall time on an idle machine of 2 cores; %s s here, on %d cores with a load of %.0f' % (
            len(peer), about['wall'], seconds, os.cpu_count(), os.getloadavg()[2]))


def judge(passed, skipped, path):
    """Returns what is wrong with a whole run."""
    least, known, wrong = 0, {}, []
    with open(path) as f:
        for line in f:
            word, _, rest = line.strip().partition(' ')
            if word == 'passed':
                least = int(rest)
            elif word == 'skipped':
                name, _, why = rest.partition(' ')
                known[name] = why.strip()
    for name, why in skipped:
        if name in known:
            print('SKIP %s\n     %s' % (name, known[name]))
        else:
            wrong.append('%s is skipped: %s' % (name, why))
    if passed < least:
        wrong.append('%d tests passed, fewer than the %d of %s' % (passed, least, os.path.basename(path)))
    return wrong


def main():
    stream, directory, seconds, concurrency, peer = sys.argv[1:6]
    tests = {}

    def on(case):
        if case['status'] == 'exists':
            return
        begin, end = case['timestamps']
        took = (end - begin).total_seconds() if begin and end else 0.0
        texts = {}
        for name, content in case['details'].items():
            try:
                texts[name] = content.as_text()
            except (UnicodeDecodeError, ValueError) as e:
                texts[name] = repr(e)
        tests[case['id']] = (WORDS.get(case['status'], 'FAIL'), took, texts)

    result = testtools.StreamToDict(on)
    result.startTestRun()
    with open(stream, 'rb') as f:
        subunit.ByteStreamToStreamResult(f, non_subunit_name='stdout').run(result)
    result.stopTestRun()
    tests.pop('stdout', None)

    totals = {'tests': {}, 'classes': {}}
    failed = []
    with open(os.path.join(directory, 'tests.txt'), 'w') as lines, \
            open(os.path.join(directory, 'failures.txt'), 'w') as reasons, \
            open(os.path.join(directory, 'tracebacks.txt'), 'w') as tracebacks:
        for name in sorted(tests):
            word, took, texts = tests[name]
            kind = 'classes' if name.startswith(('setUpClass', 'tearDownClass')) else 'tests'
            totals[kind][word] = totals[kind].get(word, 0) + 1
            skipped = '  # ' + ' '.join(texts.get('reason', '').split())[:160] if word == 'SKIP' else ''
            lines.write('%s %8.3f %s%s\n' % (word, took, name, skipped))
            if word == 'FAIL':
                why = reason(texts.get('traceback') or '\n'.join(texts.values()))
                failed.append((name, why))
                reasons.write('%s  %s\n' % (name, why))
                tracebacks.write('=' * 20 + ' ' + name + '\n')
                for title, text in texts.items():
                    tracebacks.write('--- %s ---\n%s\n' % (title, text[-12000:]))

    def count(kind, word):
        return totals[kind].get(word, 0)

    for name, why in failed:
        print('FAIL %s\n     %s' % (re.sub(r'\[.*', '', name), why[:240]))
    print('interop: %d passed, %d failed, %d skipped; whole classes: %d failed, %d skipped; %s s at concurrency %s' % (
        count('tests', 'PASS'), count('tests', 'FAIL'), count('tests', 'SKIP'),
        count('classes', 'FAIL'), count('classes', 'SKIP'), seconds, concurrency))
    compare(tests, seconds, concurrency, peer)
    skipped = sorted((plain(name), ' '.join(texts.get('reason', '').split())[:240]) for name, (word, _, texts) in tests.items() if word == 'SKIP')
    wrong = []
    if len(sys.argv) > 6:
        wrong = judge(count('tests', 'PASS'), skipped, sys.argv[6])
        for line in wrong:
            print('interop: ' + line)
    else:
        for name, why in skipped:
            print('SKIP %s\n     %s' % (name, why))
    sys.exit(1 if failed or wrong or not count('tests', 'PASS') else 0)


main()
