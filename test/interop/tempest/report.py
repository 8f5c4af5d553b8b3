#!/usr/bin/python3
"""report.py STREAM DIRECTORY SECONDS CONCURRENCY: reads a subunit stream, prints totals and what failed, and writes

tests.txt       one line a test: outcome, seconds, id, and why it was skipped
failures.txt    one line a failure: id, reason
tracebacks.txt  all that a failure left

The exit status is 1 when a test failed or none passed."""
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


def main():
    stream, directory, seconds, concurrency = sys.argv[1:5]
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
    sys.exit(1 if failed or not count('tests', 'PASS') else 0)


main()
