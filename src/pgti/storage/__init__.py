"""Files and directories that are written whole or not at all, and locks on them."""

from pgti.storage.atomic import remove_partial_files as remove_partial_files
from pgti.storage.atomic import replace_atomically as replace_atomically
from pgti.storage.atomic import reraise_os_errors as reraise_os_errors
from pgti.storage.atomic import sync_directory as sync_directory
from pgti.storage.atomic import write_atomically as write_atomically
from pgti.storage.json_text import json_text as json_text
from pgti.storage.json_text import parse_json_object as parse_json_object
from pgti.storage.locks import file_lock as file_lock
from pgti.storage.small_files import check_is_file as check_is_file
from pgti.storage.small_files import read_small_file as read_small_file
from pgti.storage.staged_directory import StagedDirectory as StagedDirectory
from pgti.storage.staged_directory import recover_displaced as recover_displaced
