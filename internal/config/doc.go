// Package config finds out what a command works with: where the store is, which
// other stores it reads besides, how it mounts and what it logs.
//
// Each setting has up to four places. A flag wins over the environment, the
// environment over the configuration file, the file over the default. [Config] says
// for each value where it came from.
//
// # The file
//
// It is TOML with the tables of storage.conf(5) of the containers projects, so that
// nobody has to learn another language, under a path of our own:
//
//	[storage]
//	graphroot = "/var/lib/layerfs"            # --root
//	runroot = "/run/layerfs"                  # --runroot
//	rootless_storage_path = "$HOME/layerfs"   # the graphroot of ordinary users
//
//	[storage.options]
//	additionalimagestores = ["/srv/images"]   # --additional-store
//	remap-uids = "0:100000:65536"             # mount --uidmap
//	remap-gids = "0:100000:65536"             # mount --gidmap
//
//	[layerfs]
//	idmap = "auto"                            # mount --idmap
//	allow-other = true                        # mount --allow-other
//	insecure-registries = ["10.1.0.0/16"]     # --insecure-registry of pull, push, login
//	log-level = "warn"                        # --log-level
//	log-format = "text"                       # --log-format
//
// Root reads /etc/layerfs/storage.conf. A user reads
// $XDG_CONFIG_HOME/layerfs/storage.conf (~/.config/layerfs/storage.conf), and when
// there is none the one below /etc, whose graphroot and runroot are root's and do not
// concern him. In paths $HOME, $USER and $UID are replaced.
//
// What a newer or another program understands is no error: keys that are not known
// are named in [Config.Warnings]. A file that cannot be understood is an error that
// says in which line.
package config
