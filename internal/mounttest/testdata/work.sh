# What people do in a container, each with a check of its own. The directory of the container is the argument.
set -eu
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=a@b
root=$1
mkdir -p "$root/home/t"
cd "$root/home/t"

# git
mkdir src && cd src && git init -q .
for i in $(seq 1 40); do mkdir -p "d$((i % 10))"; echo "$i" >"d$((i % 10))/f$i"; done
git add . && git commit -qm one && cd ..
git clone -q src clone && cd clone
test -z "$(git status --short)"
git gc -q && git fsck --strict >/dev/null 2>&1
cd ..

# sqlite, with a write-ahead log, which is mapped and shared
test "$(sqlite3 t.db 'pragma journal_mode=wal; create table t(a, b);')" = wal
for i in 1 2 3; do sqlite3 t.db "insert into t select value, hex(randomblob(50)) from generate_series(1,1000);"; done
test "$(sqlite3 t.db 'select count(*) from t; pragma integrity_check;' | tr '\n' ' ')" = '3000 ok '

# tar, cp, diff, rm
tar -C "$root" -cf tree.tar etc
mkdir untarred && tar -C untarred -xf tree.tar
diff -r --no-dereference untarred/etc "$root/etc"
cp -a untarred copied && diff -r --no-dereference untarred copied
rm -rf untarred copied tree.tar

# many small files, as packages of node have them
for i in $(seq 1 40); do mkdir -p "modules/p$i/lib"; echo '{}' >"modules/p$i/package.json"; echo x >"modules/p$i/lib/index.js"; done
cp -r modules again && diff -r modules again && mv again moved && rm -rf modules
test "$(find moved -type f | wc -l)" = 80

# files of the image: directories moved and back, links, modes, replaced and removed
before=$(ls "$root/etc" | sort | sha256sum)
mv "$root/etc" "$root/etc.moved" && mv "$root/etc.moved" "$root/etc"
test "$before" = "$(ls "$root/etc" | sort | sha256sum)"
ino=$(stat -c %i "$root/etc/passwd")
chmod 600 "$root/etc/passwd" && echo more >>"$root/etc/passwd"
test "$ino" = "$(stat -c %i "$root/etc/passwd")"
ln "$root/etc/passwd" link && rm "$root/etc/passwd" && mv link "$root/etc/passwd"
test "$ino" = "$(stat -c %i "$root/etc/passwd")" && tail -n 1 "$root/etc/passwd" | grep -qx more
rm -rf "$root/usr/share/doc" && mkdir "$root/usr/share/doc" && test -z "$(ls -A "$root/usr/share/doc")"
rm -rf "$root/var" && test ! -e "$root/var"

# mapped memory, locks, files that were removed
python3 - <<'PY'
import fcntl, mmap, os
with open("m", "wb") as f: f.write(b"\0" * 100000)
f = open("m", "r+b")
m = mmap.mmap(f.fileno(), 0)
m[5:10] = b"hello"; m.flush()
assert open("m", "rb").read(10)[5:] == b"hello"
os.pwrite(f.fileno(), b"world", 20)
assert m[20:25] == b"world"
p = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
p[0:1] = b"x"
assert open("m", "rb").read(1) == b"\0"
fcntl.flock(f, fcntl.LOCK_EX)
g = open("m")
try:
    fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB); raise SystemExit("locked twice")
except BlockingIOError: pass
os.unlink("m"); m[0:1] = b"y"; m.flush()
assert os.pread(f.fileno(), 1, 0) == b"y" and os.fstat(f.fileno()).st_nlink == 0
PY
